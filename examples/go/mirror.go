// mirror PREFIX - keeps a copy of all keys that begin with PREFIX (no * in it), and prints each change of it.
//
// Run it with: go run mirror.go PREFIX
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"
)

// [mirror]

const shortest, longest = 100 * time.Millisecond, 5 * time.Second // pauses before connecting again

type Message struct {
	Type      string          `json:"type"`
	State     string          `json:"state"`
	Key       string          `json:"key"`
	Value     *string         `json:"value"`
	Error     string          `json:"error"`
	MessageID json.RawMessage `json:"messageId"`
	Records   []struct{ Key, Value string }
	Truncated bool `json:"truncated"`
}

type Mirror struct {
	socket, prefix string
	copy           map[string]string
	seen, changed  map[string]bool // changed: while all is read, what was told meanwhile, and so is newer
	first          string          // the start of the page that is being read
	reading        int             // the number of the current reading; answers to earlier ones are ignored
	pause          time.Duration
	conn           net.Conn
}

// Run goes on for ever: connect, follow, and when that ends begin anew.
func (m *Mirror) Run() {
	for m.pause = shortest; ; m.pause *= 2 {
		if m.pause > longest {
			m.pause = longest
		}
		fmt.Fprintf(os.Stderr, "%v; trying again\n", m.follow())
		time.Sleep(m.pause)
	}
}

func (m *Mirror) follow() (err error) {
	if m.conn, err = net.Dial("unix", m.socket); err != nil {
		return err
	}
	defer m.conn.Close()
	if err = m.send(map[string]any{"op": "subscribe", "pattern": m.prefix + "*", "messageId": "subscribe"}); err != nil {
		return err
	}
	for reader := bufio.NewReader(m.conn); ; { // a Scanner would give up at 64 KiB
		line, err := reader.ReadBytes('\n')
		if err != nil {
			return fmt.Errorf("hpkvd has closed the connection: %w", err)
		}
		var message Message
		if err = json.Unmarshal(line, &message); err != nil {
			return err
		}
		if err = m.take(&message); err != nil {
			return err
		}
	}
}

func (m *Mirror) take(message *Message) error {
	switch {
	case message.Type == "notification":
		if m.changed != nil {
			m.changed[message.Key] = true
		}
		m.put(message.Key, message.Value)
	case message.Type == "gap": // changes may have been missed
		return m.readAll()
	case message.Type == "unsubscribed":
		return errors.New("the access rules have ended the subscription")
	case message.Type == "connection":
		fmt.Fprintln(os.Stderr, "the service is", message.State)
	case message.Error != "":
		return errors.New(message.Error)
	case string(message.MessageID) == `"subscribe"`: // from here on no change is missed
		m.pause = shortest
		return m.readAll()
	case string(message.MessageID) == fmt.Sprint(m.reading):
		return m.takePage(message)
	}
	return nil
}

func (m *Mirror) readAll() error {
	m.reading++
	m.seen, m.changed = map[string]bool{}, map[string]bool{}
	return m.readPage(m.prefix)
}

func (m *Mirror) readPage(first string) error {
	m.first = first
	return m.send(map[string]any{"op": "range", "key": first, "endKey": m.lastKey(), "messageId": m.reading})
}

// lastKey is the last key that can begin with the prefix: a key has at most 512 bytes.
func (m *Mirror) lastKey() string {
	room := 512 - len(m.prefix)
	if room < 0 {
		return m.prefix
	}
	return m.prefix + strings.Repeat("\U0010ffff", room/4) + []string{"", "\x7f", "\u07ff", "\uffff"}[room%4]
}

func (m *Mirror) takePage(page *Message) error {
	for i := range page.Records {
		record := &page.Records[i]
		m.seen[record.Key] = true
		if !m.changed[record.Key] {
			m.put(record.Key, &record.Value)
		}
	}
	if page.Truncated { // the next page starts at the last key of this one: a longer start may be too long
		last := page.Records[len(page.Records)-1].Key
		if last == m.first {
			return errors.New("the service returns no more records")
		}
		return m.readPage(last)
	}
	for key := range m.copy {
		if !m.seen[key] && !m.changed[key] {
			m.put(key, nil)
		}
	}
	m.changed = nil
	return nil
}

func (m *Mirror) put(key string, value *string) {
	old, known := m.copy[key]
	if value == nil {
		delete(m.copy, key)
		if known {
			fmt.Println(key, "is gone")
		}
	} else if !known || old != *value {
		m.copy[key] = *value
		fmt.Println(key, "=", *value)
	}
}

func (m *Mirror) send(request map[string]any) error {
	line, err := json.Marshal(request)
	if err == nil {
		_, err = m.conn.Write(append(line, '\n'))
	}
	return err
}

// [end]

func main() {
	path := os.Getenv("HPKVD_SOCKET")
	if path == "" {
		path = "/run/hpkvd/hpkvd.sock"
	}
	m := Mirror{socket: path, prefix: os.Args[1], copy: map[string]string{}}
	m.Run()
}
