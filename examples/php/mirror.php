#!/usr/bin/env php
<?php
// mirror.php PREFIX - keeps a copy of all keys that begin with PREFIX (no * in it), and prints each change of it.

// [mirror]
class Mirror
{
    private array $copy = [];
    private array $seen = [];
    private ?array $changed = null; // while records are read: the keys of notifications that came meanwhile, which are newer
    private int $reading = 0; // the number of the current reading; answers to earlier ones are ignored
    private string $first; // the start of the page that is being read
    private int $pause;
    private $stream;

    public function __construct(private string $socket, private string $prefix)
    {
    }

    /** Connects and follows, again and again. */
    public function run(): never
    {
        for ($this->pause = 100; ; $this->pause = min($this->pause * 2, 5000)) {
            try {
                $this->follow();
            } catch (RuntimeException | JsonException $e) {
                fwrite(STDERR, $e->getMessage() . "; trying again\n");
            }
            usleep($this->pause * 1000);
        }
    }

    private function follow(): never
    {
        $this->stream = @stream_socket_client("unix://$this->socket", $code, $message, 5);
        if (!$this->stream) {
            throw new RuntimeException("$this->socket: $message");
        }
        stream_set_timeout($this->stream, 2 ** 31 - 1); // there may be no notification for years
        $this->send(['op' => 'subscribe', 'pattern' => $this->prefix . '*', 'messageId' => 'subscribe']);
        while (($line = fgets($this->stream)) !== false) {
            $this->take(json_decode($line, true, 512, JSON_THROW_ON_ERROR));
        }
        throw new RuntimeException('hpkvd has closed the connection');
    }

    private function take(array $message): void
    {
        $type = $message['type'] ?? null;
        $id = $message['messageId'] ?? null;
        if ($type === 'notification') {
            if ($this->changed !== null) {
                $this->changed[$message['key']] = true;
            }
            $this->put($message['key'], $message['value']);
        } elseif ($type === 'gap') {
            $this->readAll(); // changes may have been missed
        } elseif ($type === 'unsubscribed') {
            throw new RuntimeException('the access rules have ended the subscription');
        } elseif ($type === 'connection') {
            fwrite(STDERR, "the service is {$message['state']}\n");
        } elseif (isset($message['error'])) {
            throw new RuntimeException($message['error']);
        } elseif ($id === 'subscribe') {
            $this->pause = 100; // from here on no change is missed
            $this->readAll();
        } elseif ($id === $this->reading) {
            $this->takePage($message['records'], $message['truncated']);
        }
    }

    private function readAll(): void
    {
        $this->reading++;
        $this->seen = $this->changed = [];
        $this->readPage($this->prefix);
    }

    private function readPage(string $first): void
    {
        $this->first = $first;
        $this->send(['op' => 'range', 'key' => $first, 'endKey' => $this->lastKey(), 'messageId' => $this->reading]);
    }

    /** The last key that can begin with the prefix: a key has at most 512 bytes. */
    private function lastKey(): string
    {
        $room = max(0, 512 - strlen($this->prefix));
        return $this->prefix . str_repeat("\u{10ffff}", intdiv($room, 4)) . ['', "\x7f", "\u{7ff}", "\u{ffff}"][$room % 4];
    }

    private function takePage(array $records, bool $truncated): void
    {
        foreach ($records as ['key' => $key, 'value' => $value]) {
            $this->seen[$key] = true;
            if (!isset($this->changed[$key])) {
                $this->put($key, $value);
            }
        }
        if ($truncated) { // the next page starts at the last key of this one: a longer start may be too long
            $last = end($records)['key'];
            if ($last === $this->first) {
                throw new RuntimeException('the service returns no more records');
            }
            $this->readPage($last);
            return;
        }
        foreach (array_diff_key($this->copy, $this->seen, $this->changed) as $key => $value) {
            $this->put((string) $key, null);
        }
        $this->changed = null;
    }

    private function put(string $key, ?string $value): void
    {
        $old = $this->copy[$key] ?? null;
        if ($value === null) {
            unset($this->copy[$key]);
        } else {
            $this->copy[$key] = $value;
        }
        if ($value !== $old) {
            echo $key, $value === null ? ' is gone' : " = $value", "\n";
        }
    }

    private function send(array $request): void
    {
        $line = json_encode($request, JSON_THROW_ON_ERROR) . "\n";
        for ($sent = 0; $sent < strlen($line); $sent += $n) {
            $n = @fwrite($this->stream, substr($line, $sent));
            if (!$n) {
                throw new RuntimeException('hpkvd takes no requests any more');
            }
        }
    }
}
// [end]

(new Mirror(getenv('HPKVD_SOCKET') ?: '/run/hpkvd/hpkvd.sock', $argv[1]))->run();
