// Package require declares what the templates use of github.com/stretchr/testify/require, as its documentation does.
package require

type TestingT interface {
	Errorf(format string, args ...any)
	FailNow()
}

func NoError(t TestingT, err error, messages ...any) { panic("a shape") }

func ErrorIs(t TestingT, err, target error, messages ...any) { panic("a shape") }
