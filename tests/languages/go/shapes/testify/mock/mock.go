// Package mock declares what the templates use of github.com/stretchr/testify/mock, as its documentation does.
package mock


const Anything = "mock.Anything"

type TestingT interface {
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	FailNow()
}

type Mock struct{}

func (*Mock) Called(arguments ...any) Arguments { panic("a shape") }

func (*Mock) On(method string, arguments ...any) *Call { panic("a shape") }

func (*Mock) Test(t TestingT) { panic("a shape") }

func (*Mock) AssertExpectations(t TestingT) bool { panic("a shape") }

type Call struct{}

func (*Call) Return(arguments ...any) *Call { panic("a shape") }

func (*Call) Once() *Call { panic("a shape") }

type Arguments []any

func (Arguments) String(at ...int) string { panic("a shape") }

func (Arguments) Error(at int) error { panic("a shape") }

