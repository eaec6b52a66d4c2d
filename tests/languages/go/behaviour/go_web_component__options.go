package ordersview

import (
	"context"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

type memory struct{ rows []Order }

func (m *memory) List(_ context.Context, offset, limit int) ([]Order, error) {
	return m.rows[min(offset, len(m.rows)):min(offset+limit, len(m.rows))], nil
}

func (m *memory) Add(_ context.Context, row Order) error {
	m.rows = append(m.rows, row)
	return nil
}

func TestThePageTakesWhatIsRightAndEscapesAll(t *testing.T) {
	const path = "/api/v1.0/Order-Items"
	store := &memory{}
	handler := NewOrderHandler(store)
	post := func(values url.Values, site string) *httptest.ResponseRecorder {
		request := httptest.NewRequest("POST", path, strings.NewReader(values.Encode()))
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		request.Header.Set("Sec-Fetch-Site", site)
		recorder := httptest.NewRecorder()
		handler.ServeHTTP(recorder, request)
		return recorder
	}
	good := url.Values{"customer_id": {"1"}, "total": {"1.5"}, "note": {"<script>"}}
	if got := post(good, "same-origin"); got.Code != 303 || len(store.rows) != 1 {
		t.Fatalf("%d, %d rows", got.Code, len(store.rows))
	}
	if got := post(good, "cross-site"); got.Code != 403 || len(store.rows) != 1 {
		t.Errorf("from another site: %d, %d rows", got.Code, len(store.rows))
	}
	wrong := post(url.Values{"customer_id": {`a"b`}, "total": {""}}, "same-origin")
	if body := wrong.Body.String(); wrong.Code != 422 || !strings.Contains(body, "must be a whole number") ||
		!strings.Contains(body, "is required") || !strings.Contains(body, "a&#34;b") {
		t.Errorf("%d: %s", wrong.Code, body)
	}
	for range 25 {
		store.rows = append(store.rows, Order{"note": "n"})
	}
	shown := httptest.NewRecorder()
	handler.ServeHTTP(shown, httptest.NewRequest("GET", path, nil))
	if body := shown.Body.String(); shown.Code != 200 || !strings.Contains(body, "&lt;script&gt;") ||
		!strings.Contains(body, "?page=2") {
		t.Errorf("%d: %s", shown.Code, body)
	}
}
