package recordspipeline

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestLinesAreTransformedInOrderUntilTheFirstError(t *testing.T) {
	var in, out strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&in, "{\"id\":\"%d\"}\n", i)
	}
	without7 := func(_ context.Context, one Record) (Record, bool, error) {
		return one, !strings.HasSuffix(one.ID, "7"), nil
	}
	stats, err := Run(context.Background(), strings.NewReader(in.String()), &out, 8, without7)
	if err != nil || stats != (Stats{Read: 1000, Written: 900}) {
		t.Fatalf("%+v, %v", stats, err)
	}
	if !strings.HasPrefix(out.String(), "{\"id\":\"0\"}\n{\"id\":\"1\"}\n") {
		t.Errorf("out of order: %.40s", out.String())
	}

	boom := errors.New("boom")
	until500 := func(_ context.Context, one Record) (Record, bool, error) {
		if one.ID == "500" {
			return one, false, boom
		}
		return one, true, nil
	}
	stats, err = Run(context.Background(), strings.NewReader(in.String()), &out, 8, until500)
	if !errors.Is(err, boom) || !strings.Contains(err.Error(), "line 501") || stats.Written != 500 {
		t.Errorf("%+v, %v", stats, err)
	}

	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Run(ended, strings.NewReader(in.String()), &out, 8, without7); err == nil {
		t.Error("a run goes on after its context")
	}
}
