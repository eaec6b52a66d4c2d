package jobspool

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestResultsComeInOrderFromSoManyWorkers(t *testing.T) {
	var running, most atomic.Int32
	double := func(_ context.Context, i int) (int, error) {
		most.Store(max(most.Load(), running.Add(1)))
		time.Sleep(time.Millisecond)
		running.Add(-1)
		return 2 * i, nil
	}
	inputs := make([]int, 100)
	for i := range inputs {
		inputs[i] = i
	}
	var got []int
	for value, err := range ProcessJobs(context.Background(), 4, slices.Values(inputs), double) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, value)
	}
	if !slices.IsSorted(got) || len(got) != 100 || most.Load() > 4 || most.Load() < 2 {
		t.Errorf("%d results, at most %d at a time: %v", len(got), most.Load(), got)
	}
}

func TestAnErrorAPanicAndTheContextEndIt(t *testing.T) {
	endless := func(yield func(int) bool) {
		for i := 0; yield(i); i++ {
		}
	}
	boom := errors.New("boom")
	count := 0
	for _, err := range ProcessJobs(context.Background(), 4, endless, func(_ context.Context, i int) (int, error) {
		if i == 10 {
			return 0, boom
		}
		return i, nil
	}) {
		count++
		if err != nil && !errors.Is(err, boom) {
			t.Fatal(err)
		}
	}
	if count != 11 {
		t.Errorf("%d results, want 10 and the error", count)
	}
	for _, err := range ProcessJobs(context.Background(), 1, endless, func(context.Context, int) (int, error) { panic("oh") }) {
		if err == nil || !strings.Contains(err.Error(), "oh") {
			t.Error(err)
		}
	}
	for range ProcessJobs(context.Background(), 2, endless, func(_ context.Context, i int) (int, error) { return i, nil }) {
		break
	}
	ended, cancel := context.WithCancel(context.Background())
	defer cancel()
	var last error
	for i, err := range ProcessJobs(ended, 2, endless, func(_ context.Context, i int) (int, error) { return i, nil }) {
		if i == 50 {
			cancel()
		}
		last = err
	}
	if !errors.Is(last, context.Canceled) {
		t.Errorf("ended with %v", last)
	}
}
