package recordsbatches

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
)

func lines(many int) string {
	var text strings.Builder
	for number := range many {
		fmt.Fprintf(&text, "{\"id\": \"%d\"}\n\n", number)
	}
	return text.String()
}

func TestEveryLineIsStoredOnceInBatchesOfTheSize(t *testing.T) {
	var mu sync.Mutex
	sizes, seen := map[int]int{}, map[string]bool{}
	stored, err := Run(t.Context(), strings.NewReader(lines(3*BatchSize+1)), func(_ context.Context, batch []Record) error {
		mu.Lock()
		defer mu.Unlock()
		sizes[len(batch)]++
		for _, one := range batch {
			seen[one.ID] = true
		}
		return nil
	})
	if err != nil || stored != 3*BatchSize+1 || len(seen) != stored || sizes[BatchSize] != 3 || sizes[1] != 1 {
		t.Fatalf("stored %d, seen %d, sizes %v, error %v", stored, len(seen), sizes, err)
	}
}

func TestTheFirstErrorEndsIt(t *testing.T) {
	full := errors.New("full")
	stored, err := Run(t.Context(), strings.NewReader(lines(50*BatchSize)), func(context.Context, []Record) error {
		return full
	})
	if !errors.Is(err, full) || stored != 0 {
		t.Fatalf("stored %d, error %v", stored, err)
	}
	nothing := func(context.Context, []Record) error { return nil }
	if _, err = Run(t.Context(), strings.NewReader("{\"id\": \"1\"}\nx\n"), nothing); err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Fatalf("a bad line: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err = Run(ctx, strings.NewReader(lines(1)), nothing); !errors.Is(err, context.Canceled) {
		t.Fatalf("a cancelled run: %v", err)
	}
}
