// count KEY - counts: adds one to KEY and prints what it is now.
//
// Exit status: 0 done, 1 not counted, 2 perhaps counted. Run it with: go run count.go KEY
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"time"
)

// [ask]

// Hpkv is a connection to hpkvd, for one goroutine at a time.
type Hpkv struct {
	conn   net.Conn
	reader *bufio.Reader
}

type Answer struct {
	Code     int         `json:"code"`
	Value    string      `json:"value"`
	NewValue json.Number `json:"newValue"`
	Error    string      `json:"error"`
	Executed string      `json:"executed"`
}

func Dial(path string) (*Hpkv, error) {
	conn, err := net.DialTimeout("unix", path, 5*time.Second)
	if err != nil {
		return nil, err
	}
	return &Hpkv{conn, bufio.NewReader(conn)}, nil
}

// Ask sends a request and returns the answer, which may be an error of hpkvd or HPKV. If err is not nil there is no answer:
// close the connection.
func (h *Hpkv) Ask(request map[string]any) (answer Answer, err error) {
	line, err := json.Marshal(request)
	if err != nil {
		return answer, err
	}
	// hpkvd answers within 10 s; this is for a daemon that hangs.
	h.conn.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err = h.conn.Write(append(line, '\n')); err != nil {
		return answer, err
	}
	if line, err = h.reader.ReadBytes('\n'); err != nil {
		return answer, err
	}
	return answer, json.Unmarshal(line, &answer)
}

// [end]

func fail(status int, why string, detail any) {
	fmt.Fprintf(os.Stderr, "%s: %v\n", why, detail)
	os.Exit(status)
}

func main() {
	path := os.Getenv("HPKVD_SOCKET")
	if path == "" {
		path = "/run/hpkvd/hpkvd.sock"
	}
	hpkv, err := Dial(path)
	if err != nil {
		fail(1, "not counted", err)
	}
	answer, err := hpkv.Ask(map[string]any{"op": "increment", "key": os.Args[1]})
	switch {
	case err != nil:
		fail(2, "perhaps counted", err)
	case answer.Code == 200:
		fmt.Println(answer.NewValue)
	case answer.Executed == "unknown":
		fail(2, "perhaps counted", answer.Error)
	default:
		fail(1, "not counted", answer.Error)
	}
}
