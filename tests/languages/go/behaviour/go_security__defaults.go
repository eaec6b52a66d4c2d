package usersauth

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

type hashes map[string]string

func (h hashes) StoredHash(_ context.Context, login string) (string, error) {
	if stored, found := h[login]; found {
		return stored, nil
	}
	return "", ErrUnknown
}

func TestOnlyTheRightPasswordPasses(t *testing.T) {
	const password = "correct horse battery"
	stored, err := Hash(password)
	if err != nil || strings.Contains(stored, password) {
		t.Fatal(stored, err)
	}
	if err := Verify(stored, password); err != nil {
		t.Error(err)
	}
	if err := Verify(stored, password+"x"); !errors.Is(err, ErrMismatch) {
		t.Error(err)
	}
	if err := Verify("damaged", password); !errors.Is(err, ErrHash) {
		t.Error(err)
	}
	if _, err := Hash("short"); !errors.Is(err, ErrPassword) {
		t.Error(err)
	}
	if NeedsRehash(stored) || !NeedsRehash(strings.Replace(stored, "600000", "1000", 1)) {
		t.Error("NeedsRehash")
	}

	require, err := Require(hashes{"me": stored})
	if err != nil {
		t.Fatal(err)
	}
	who := ""
	handler := require(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { who, _ = Login(r.Context()) }))
	for _, test := range []struct {
		login, password string
		want            int
	}{{"me", "wrong", 401}, {"you", password, 401}, {"me", password, 200}} {
		request := httptest.NewRequest("GET", "/", nil)
		request.SetBasicAuth(test.login, test.password)
		recorder := httptest.NewRecorder()
		handler.ServeHTTP(recorder, request)
		if recorder.Code != test.want || (who == "me") != (test.want == 200) {
			t.Errorf("%+v: %d, %q", test, recorder.Code, who)
		}
	}
}
