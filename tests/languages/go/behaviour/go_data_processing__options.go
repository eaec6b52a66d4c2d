package orderscsv

import (
	"context"
	"strings"
	"testing"
)

func TestGoodRowsAreWrittenAndBadOnesNamed(t *testing.T) {
	in := "\ufeffnote,TOTAL,customer_id,more\n\"two\nlines\",1.50,1,z\nx,abc,2,z\n\"\",1,2,z\nok,2,2,z\n"
	var out strings.Builder
	var rejected []int
	summary, err := Convert(context.Background(), strings.NewReader(in), &out, func(line int, reason error) error {
		rejected = append(rejected, line)
		return nil
	})
	if err != nil || summary != (Summary{Read: 4, Written: 2, Rejected: 2}) {
		t.Fatalf("%+v, %v", summary, err)
	}
	if len(rejected) != 2 || rejected[0] != 4 || rejected[1] != 5 {
		t.Errorf("rejected lines %v, want 4 and 5", rejected)
	}
	want := `{"customer_id":1,"total":1.50,"note":"two\nlines"}` + "\n" + `{"customer_id":2,"total":2,"note":"ok"}` + "\n"
	if out.String() != want {
		t.Errorf("written %s, want %s", out.String(), want)
	}
	_, err = Convert(context.Background(), strings.NewReader("note\n"), &out, nil)
	if err == nil || !strings.Contains(err.Error(), "customer_id, total") {
		t.Errorf("a header without columns: %v", err)
	}
}
