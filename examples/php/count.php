#!/usr/bin/env php
<?php
// count.php KEY - counts: adds one to KEY and prints what it is now.
//
// Exit status: 0 done, 1 not counted, 2 perhaps counted.

// [ask]
/** A connection to hpkvd. It costs little: a web page opens one when it needs it. */
class Hpkv
{
    private $stream;

    public function __construct(private string $path)
    {
        $this->stream = @stream_socket_client("unix://$path", $code, $message, 5);
        if (!$this->stream) {
            throw new RuntimeException("$path: $message");
        }
        stream_set_timeout($this->stream, 30); // hpkvd answers within 10 s; this is for a daemon that hangs
    }

    /** Sends a request and returns the answer, which may be an error. RuntimeException: there is no answer, and the connection is of no more use. */
    public function ask(array $request): array
    {
        $line = json_encode($request, JSON_THROW_ON_ERROR | JSON_UNESCAPED_UNICODE) . "\n";
        for ($sent = 0; $sent < strlen($line); $sent += $n) {
            $n = @fwrite($this->stream, substr($line, $sent));
            if (!$n) {
                throw new RuntimeException('hpkvd takes no requests any more');
            }
        }
        $answer = fgets($this->stream);
        if ($answer === false || !str_ends_with($answer, "\n")) {
            throw new RuntimeException('hpkvd has closed the connection');
        }
        return json_decode($answer, true, 512, JSON_THROW_ON_ERROR | JSON_BIGINT_AS_STRING);
    }
}
// [end]

function fail(int $status, string $why): never
{
    fwrite(STDERR, "$why\n");
    exit($status);
}

try {
    $hpkv = new Hpkv(getenv('HPKVD_SOCKET') ?: '/run/hpkvd/hpkvd.sock');
} catch (RuntimeException $e) {
    fail(1, 'not counted: ' . $e->getMessage());
}
try {
    $answer = $hpkv->ask(['op' => 'increment', 'key' => $argv[1]]);
} catch (RuntimeException | JsonException $e) {
    $answer = ['code' => 0, 'error' => $e->getMessage(), 'executed' => 'unknown'];
}
if ($answer['code'] === 200) {
    echo $answer['newValue'], "\n";
} elseif (($answer['executed'] ?? '') === 'unknown') {
    fail(2, 'perhaps counted: ' . $answer['error']);
} else {
    fail(1, 'not counted: ' . $answer['error']);
}
