package serviceconfig

import (
	"errors"
	"flag"
	"io"
	"strings"
	"testing"
)

func TestFlagsGoOverTheEnvironmentAndMistakesAreNamed(t *testing.T) {
	load := func(environment map[string]string, args ...string) (Config, error) {
		lookup := func(name string) (string, bool) {
			value, found := environment[name]
			return value, found
		}
		return Load(args, lookup, io.Discard)
	}
	config, err := load(map[string]string{"SERVICE_DATABASE_URL": "u", "SERVICE_PORT": "8", "SERVICE_DEBUG": "true"}, "-port", "9")
	if err != nil || config.Port != 9 || config.DatabaseURL != "u" || !config.Debug {
		t.Errorf("%+v, %v", config, err)
	}
	_, err = load(map[string]string{"SERVICE_PORT": "secret"})
	if err == nil || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "database-url is missing") {
		t.Error(err)
	}
	if _, err = load(nil, "-h"); !errors.Is(err, flag.ErrHelp) {
		t.Error(err)
	}
}
