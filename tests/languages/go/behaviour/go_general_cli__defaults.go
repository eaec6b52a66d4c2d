package main

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestTheCommandsDoWhatTheirUsageSays(t *testing.T) {
	said := func(args ...string) string {
		var out strings.Builder
		if err := run(context.Background(), args, strings.NewReader("a\nbb\n"), &out, io.Discard); err != nil {
			t.Errorf("%v: %v", args, err)
		}
		return out.String()
	}
	if got := said("count"); got != "-\t2\t3\n" {
		t.Errorf("count = %q", got)
	}
	if got := said("find", "-i", "-text", "B"); got != "-:2:bb\n" {
		t.Errorf("find = %q", got)
	}
	for _, wrong := range [][]string{nil, {"unknown"}, {"find"}, {"count", "-unknown"}} {
		if err := run(context.Background(), wrong, nil, io.Discard, io.Discard); !errors.Is(err, errUsage) {
			t.Errorf("%v: %v", wrong, err)
		}
	}
	if err := run(context.Background(), []string{"count", "/no/such/file"}, nil, io.Discard, io.Discard); err == nil {
		t.Error("a file that is not there is no error")
	}
}
