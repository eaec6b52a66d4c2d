// Package promhttp declares what the templates use of client_golang's package of this name.
package promhttp

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
)

type HandlerOpts struct{}

func HandlerFor(reg prometheus.Gatherer, opts HandlerOpts) http.Handler { panic("a shape") }
