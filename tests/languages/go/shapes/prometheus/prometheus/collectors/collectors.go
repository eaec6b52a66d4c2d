// Package collectors declares what the templates use of client_golang's package of this name.
package collectors

import "github.com/prometheus/client_golang/prometheus"

type ProcessCollectorOpts struct{}

func NewGoCollector() prometheus.Collector { panic("a shape") }

func NewProcessCollector(opts ProcessCollectorOpts) prometheus.Collector { panic("a shape") }
