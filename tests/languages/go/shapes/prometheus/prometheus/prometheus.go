// Package prometheus declares what the templates use of github.com/prometheus/client_golang, as its documentation does.
package prometheus

type Collector interface {
	Collect(chan<- Metric)
}

type Metric interface{}

type Gatherer interface {
	Gather() ([]any, error)
}

type Registry struct{}

func NewRegistry() *Registry { panic("a shape") }

func (*Registry) MustRegister(collectors ...Collector) { panic("a shape") }

func (*Registry) Gather() ([]any, error) { panic("a shape") }

var DefBuckets []float64

type HistogramOpts struct {
	Name    string
	Help    string
	Buckets []float64
}

type Observer interface {
	Observe(value float64)
}

type HistogramVec struct{}

func NewHistogramVec(opts HistogramOpts, labelNames []string) *HistogramVec { panic("a shape") }

func (*HistogramVec) WithLabelValues(values ...string) Observer { panic("a shape") }

func (*HistogramVec) Collect(chan<- Metric) { panic("a shape") }
