package itemscache

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestOneLoadServesAllUntilItLapsesOrIsEvicted(t *testing.T) {
	var loads atomic.Int32
	now := time.Now()
	release := make(chan struct{})
	cache, err := New(func(_ context.Context, key string) (int, error) {
		loads.Add(1)
		<-release
		if key == "bad" {
			return 0, errors.New("bad")
		}
		return len(key), nil
	}, Options{TTL: time.Minute, Limit: 2, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	get := func(key string, wantLoads int32) {
		t.Helper()
		if value, err := cache.Get(t.Context(), key); err != nil || value != len(key) || loads.Load() != wantLoads {
			t.Errorf("Get(%q) = %d, %v after %d loads, want %d loads", key, value, err, loads.Load(), wantLoads)
		}
	}

	var callers sync.WaitGroup
	for range 20 {
		callers.Go(func() { get("abc", 1) })
	}
	close(release)
	callers.Wait()
	get("b", 2)
	get("abc", 2)
	get("c", 3)
	get("abc", 3)
	get("b", 4)
	now = now.Add(2 * time.Minute)
	get("b", 5)
	if _, err := cache.Get(t.Context(), "bad"); err == nil {
		t.Error("an error of the load got lost")
	}
	if stats := cache.Stats(); stats.Evictions < 2 {
		t.Errorf("%+v", stats)
	}
}
