// Package chi has the shapes of chi's public functions that the templates use, for type checks without the network.
package chi

import "net/http"

type Router interface {
	http.Handler
	Use(middlewares ...func(http.Handler) http.Handler)
	Route(pattern string, fn func(r Router)) Router
	Get(pattern string, h http.HandlerFunc)
	Post(pattern string, h http.HandlerFunc)
	Put(pattern string, h http.HandlerFunc)
	Delete(pattern string, h http.HandlerFunc)
}

type Mux struct{ Router }

func NewRouter() *Mux { panic("shape only") }

func URLParam(r *http.Request, key string) string { panic("shape only") }
