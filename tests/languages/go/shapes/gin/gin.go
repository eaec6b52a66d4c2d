// Package gin declares what the templates use of github.com/gin-gonic/gin, as its documentation does.
package gin

import "net/http"

type H map[string]any

type HandlerFunc func(*Context)

type Context struct {
	Request *http.Request
	Writer  http.ResponseWriter
}

func (*Context) Param(key string) string { panic("a shape") }

func (*Context) DefaultQuery(key, value string) string { panic("a shape") }

func (*Context) ShouldBindJSON(into any) error { panic("a shape") }

func (*Context) JSON(code int, body any) { panic("a shape") }

func (*Context) AbortWithStatusJSON(code int, body any) { panic("a shape") }

func (*Context) Status(code int) { panic("a shape") }

func (*Context) Header(key, value string) { panic("a shape") }

type RouterGroup struct{}

func (*RouterGroup) GET(path string, handlers ...HandlerFunc) *RouterGroup { panic("a shape") }

func (*RouterGroup) POST(path string, handlers ...HandlerFunc) *RouterGroup { panic("a shape") }

func (*RouterGroup) PUT(path string, handlers ...HandlerFunc) *RouterGroup { panic("a shape") }

func (*RouterGroup) DELETE(path string, handlers ...HandlerFunc) *RouterGroup { panic("a shape") }

type Engine struct{ RouterGroup }

func New() *Engine { panic("a shape") }

func Recovery() HandlerFunc { panic("a shape") }

func (*Engine) Use(handlers ...HandlerFunc) { panic("a shape") }

func (*Engine) ServeHTTP(w http.ResponseWriter, r *http.Request) { panic("a shape") }
