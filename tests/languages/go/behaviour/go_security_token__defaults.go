package clientstokens

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

type memory map[string]ClientToken

func (m memory) Token(_ context.Context, id string) (ClientToken, error) {
	if token, found := m[id]; found {
		return token, nil
	}
	return ClientToken{}, ErrUnknown
}

func TestOnlyAValidTokenWithTheScopePasses(t *testing.T) {
	token, stored := Issue("me", []string{"read"}, time.Now().Add(time.Hour))
	lapsed, old := Issue("me", []string{"read"}, time.Now().Add(-time.Hour))
	foreign, _ := Issue("me", []string{"read"}, time.Now().Add(time.Hour))
	store := memory{stored.ID: stored, old.ID: old}
	for _, test := range []struct {
		header, scope string
		want          int
	}{
		{"Bearer " + token, "read", 200},
		{"bearer " + token, "read", 200},
		{"Bearer " + token, "write", 403},
		{"Bearer " + stored.ID + foreign[len(stored.ID):], "read", 401},
		{"Bearer " + foreign, "read", 401},
		{"Bearer " + lapsed, "read", 401},
		{"Basic " + token, "read", 401},
		{"", "read", 401},
	} {
		request := httptest.NewRequest("GET", "/", nil)
		request.Header.Set("Authorization", test.header)
		recorder := httptest.NewRecorder()
		none := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
		Require(store, test.scope)(none).ServeHTTP(recorder, request)
		if recorder.Code != test.want {
			t.Errorf("%+v: %d", test, recorder.Code)
		}
	}
}
