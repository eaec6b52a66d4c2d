package ordersapi

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestRowsAreCreatedFoundReplacedAndDeleted(t *testing.T) {
	const path = "/api/v1.0/Order-Items"
	api, mux := &OrderAPI{}, http.NewServeMux()
	api.Register(mux)
	ask := func(method, path, body string, want int) *httptest.ResponseRecorder {
		t.Helper()
		recorder := httptest.NewRecorder()
		mux.ServeHTTP(recorder, httptest.NewRequest(method, path, strings.NewReader(body)))
		if recorder.Code != want {
			t.Fatalf("%s %s: %d, want %d: %s", method, path, recorder.Code, want, recorder.Body)
		}
		return recorder
	}
	created := ask("POST", path, `{"customer_id":1,"total":9.90,"note":"x"}`, 201).Header().Get("Location")
	if body := ask("GET", created, "", 200).Body.String(); !strings.Contains(body, `"total":9.90`) {
		t.Errorf("a decimal was rounded: %s", body)
	}
	ask("PUT", created, `{"customer_id":2,"total":"1","note":"y"}`, 200)
	ask("PUT", created+"x", `{"customer_id":2,"total":1,"note":"y"}`, 404)
	ask("POST", path, `{"customer_id":2}`, 422)
	ask("POST", path, `{"customer_id":2,"unknown":1}`, 400)
	ask("POST", path, `{"id":"1"`, 400)
	ask("POST", path, `{"note":"`+strings.Repeat("x", 2<<20)+`"}`, 413)
	ask("GET", path+"?limit=0", "", 422)
	var page struct {
		Total int
		Data  []Order
	}
	if err := json.Unmarshal(ask("GET", path+"?limit=5", "", 200).Body.Bytes(), &page); err != nil {
		t.Fatal(err)
	}
	if page.Total != 1 || len(page.Data) != 1 || *page.Data[0].CustomerID != 2 {
		t.Errorf("page = %+v", page)
	}
	ask("DELETE", created, "", 204)
	ask("DELETE", created, "", 404)
}
