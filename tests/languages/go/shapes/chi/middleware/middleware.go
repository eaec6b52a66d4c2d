package middleware

import (
	"net/http"
	"time"
)

func RequestID(next http.Handler) http.Handler { panic("shape only") }

func Recoverer(next http.Handler) http.Handler { panic("shape only") }

func Timeout(timeout time.Duration) func(next http.Handler) http.Handler { panic("shape only") }

func RequestSize(bytes int64) func(http.Handler) http.Handler { panic("shape only") }

func AllowContentType(contentTypes ...string) func(http.Handler) http.Handler { panic("shape only") }
