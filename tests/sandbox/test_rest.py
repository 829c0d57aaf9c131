"""The REST side: records, keys in the address, errors."""

import http.client
import json
import unittest
from urllib.parse import quote

from sandbox import API_KEY, GET, trust, sandbox_case


class Records(sandbox_case()):
    def test_a_record_is_written_read_and_deleted(self):
        status, answer = self.rest("POST", "/record", {"key": "a", "value": "1"})
        self.assertEqual((200, True), (status, answer["success"]))
        self.assertEqual((200, {"key": "a", "value": "1"}), self.rest("GET", "/record/a"))
        self.assertEqual(200, self.rest("DELETE", "/record/a")[0])
        for method in "GET", "DELETE":
            self.assertEqual((404, {"error": "Record not found"}), self.rest(method, "/record/a"))

    def test_keys_in_the_address_are_decoded(self):
        for key, path in [
            ("a/b", "a%2Fb"), ("a/b", "a/b"), ("a b", "a%20b"), ("ä€😀", "%C3%A4%E2%82%AC%F0%9F%98%80"), ("?x=1&y", "%3Fx%3D1%26y"),
            ("100%", "100%25"), ("a+b", "a%2Bb"), ("\x01", "%01"), ('"', "%22"), ("a;b", "a%3Bb"), ("#", "%23"),
            ("a+b", "a+b"), ("a//b", "a//b"), ("a//b", "a%2F%2Fb"), ("/", "%2F"), ("/", "/"), ("../x", "../x"), ("a/./b", "a/./b"), ("..", "%2E%2E"),
            ("nul\0!", "nul%00!"), ("\0", "%00"), ("a%20b", "a%2520b"), ("a=b", "a=b"), ("a&b", "a&b"), ("a;b", "a;b"), ("atomic", "atomic"),
        ]:
            with self.subTest(path=path):
                self.rest("POST", "/record", {"key": key, "value": path})
                self.assertEqual((200, {"key": key, "value": path}), self.rest("GET", f"/record/{path}"))

    def test_an_address_that_is_not_utf8(self):
        for path in "/record/%zz", "/record/a%2", "/record/%", "/record/%FF", "/record/%ED%A0%80", "/records?startKey=%80&endKey=a", "/records?startKey=a&endKey=%C3":
            self.assertEqual(400, self.rest("GET", path)[0], path)

    def test_partial_update(self):
        self.rest("POST", "/record", {"key": "p", "value": '{"a":1}'})
        self.assertEqual(200, self.rest("POST", "/record", {"key": "p", "value": '{"b":2}', "partialUpdate": True})[0])
        self.assertEqual('{"a":1,"b":2}', self.rest("GET", "/record/p")[1]["value"])
        self.rest("POST", "/record", {"key": "p", "value": "x", "partialUpdate": False})
        self.assertEqual("x", self.rest("GET", "/record/p")[1]["value"])
        self.assertEqual(400, self.rest("POST", "/record", {"key": "p", "value": "x", "partialUpdate": 1})[0])

    def test_increment(self):
        self.assertEqual(4, self.rest("POST", "/record/atomic", {"key": "n", "increment": 4})[1]["newValue"])
        answer = self.rest("POST", "/record/atomic", {"key": "n", "increment": -3})[1]
        self.assertEqual((1, 1), (answer["newValue"], answer["result"]))
        self.assertEqual(400, self.rest("POST", "/record/atomic", {"key": "n"})[0])

    def test_ranges(self):
        for i in range(5):
            self.rest("POST", "/record", {"key": f"r:{i}", "value": f"{i}"})
        status, answer = self.rest("GET", "/records?startKey=r%3A1&endKey=r:3")
        records = [{"key": f"r:{i}", "value": f"{i}"} for i in (1, 2, 3)]
        self.assertEqual((200, {"records": records, "count": 3, "truncated": False}), (status, answer))
        status, answer = self.rest("GET", "/records?limit=2&endKey=r:4&startKey=r:0")
        self.assertEqual((2, True), (answer["count"], answer["truncated"]))
        for path in ["/records", "/records?startKey=a", "/records?startKey=a&endKey=", "/records?startKey=a&endKey=b&limit=0",
                     "/records?startKey=a&endKey=b&limit=x", "/records?startKey=a&endKey=b&limit=-1"]:
            self.assertEqual(400, self.rest("GET", path)[0], path)

    def test_the_bounds_of_a_range_may_be_encoded_twice(self):
        for key in "q:a b", "q:a%20b", "q:a+b", "q:\0", "q:ä/!'()*~":
            self.rest("POST", "/record", {"key": key, "value": "x"})
        once, twice = (lambda key: quote(key, safe="")), (lambda key: quote(quote(key, safe="!'()*~"), safe=""))
        for key, written in [("q:a b", once("q:a b")), ("q:a b", twice("q:a b")), ("q:a%20b", twice("q:a%20b")), ("q:a+b", "q:a+b"),
                             ("q:a+b", once("q:a+b")), ("q:\0", once("q:\0")), ("q:\0", twice("q:\0")), ("q:ä/!'()*~", twice("q:ä/!'()*~")),
                             ("q:a b", once("q%3Aa%20b"))]:
            with self.subTest(written=written):
                answer = self.rest("GET", f"/records?startKey={written}&endKey={written}")[1]
                self.assertEqual([key], [record["key"] for record in answer["records"]])
        # "q:a%20b" once encoded holds a colon, so it can't have been encoded before: it means itself.
        answer = self.rest("GET", f"/records?startKey={once('q:a%20b')}&endKey={once('q:a%20b')}")[1]
        self.assertEqual(["q:a%20b"], [record["key"] for record in answer["records"]])

    def test_both_doors_lead_to_the_same_records(self):
        self.rest("POST", "/record", {"key": "nul\0", "value": "\0"})
        self.assertEqual("\0", self.ws().ask(op=GET, key="nul\0")["value"])

    def test_wrong_bodies(self):
        for body in ["", "x", "[]", '{"key":1,"value":"x"}', '{"value":"x"}', '{"key":"a"}', '{"key":"","value":"x"}', b"\xff\x00{"]:
            self.assertEqual(400, self.rest("POST", "/record", body)[0], body)


class Nexus(sandbox_case()):
    def setUp(self):
        for key, value in [("article:1", "The quick brown fox"), ("article:2", "A lazy dog, and a QUICK one"), ("note", "nothing")]:
            self.rest("POST", "/record", {"key": key, "value": value})

    def search(self, **members):
        status, answer = self.rest("POST", "/search", members)
        self.assertEqual(200, status, answer)
        return [(result["key"], result["score"]) for result in answer["results"]]

    def test_records_with_the_words_of_a_query(self):
        self.assertEqual([("article:1", 1), ("article:2", 1)], self.search(query="quick"))
        self.assertEqual([("article:2", 1), ("article:1", 0.5)], self.search(query=" quick\tdog "))
        self.assertEqual([("article:2", 1)], self.search(query="quick dog", topK=1))
        self.assertEqual([("article:2", 1)], self.search(query="quick dog", minScore=0.6))
        self.assertEqual([("note", 1)], self.search(query="note"))
        self.assertEqual([], self.search(query="cat"))

    def test_a_question(self):
        answer = self.rest("POST", "/query", {"query": "brown fox", "topK": 3, "minScore": 0.1})
        self.assertEqual((200, {"answer": "The quick brown fox", "sources": [{"key": "article:1", "score": 1}]}), answer)
        status, answer = self.rest("POST", "/query", {"query": "cat"})
        self.assertEqual((200, []), (status, answer["sources"]))
        self.assertIsInstance(answer["answer"], str)

    def test_wrong_searches(self):
        for path in "/search", "/query":
            for body in [{}, {"query": ""}, {"query": " "}, {"query": 1}, {"query": "x", "topK": 0}, {"query": "x", "topK": 21},
                         {"query": "x", "minScore": 1.1}, {"query": "x", "minScore": "1"}, "[]", "{"]:
                self.assertEqual(400, self.rest("POST", path, body)[0], body)
            self.assertEqual(405, self.rest("GET", path)[0])
            self.assertEqual(401, self.sandbox.request("POST", path, '{"query":"x"}', {}).status)


class Refusals(sandbox_case()):
    def test_who_has_no_key_gets_nothing(self):
        for headers in {}, {"x-api-key": "wrong"}, {"x-api-key": ""}, {"x-api-key": API_KEY + "x"}:
            for method, path in [("GET", "/record/a"), ("POST", "/record"), ("POST", "/token/websocket")]:
                with self.subTest(headers=headers, path=path):
                    response = self.sandbox.request(method, path, "{}" if method == "POST" else None, headers)
                    self.assertEqual(401, response.status)
                    self.assertIn("error", json.loads(response.content))

    def test_the_name_of_the_header_is_not_case_sensitive(self):
        self.assertEqual(404, self.sandbox.request("GET", "/record/none", None, {"X-API-Key": API_KEY}).status)

    def test_addresses_that_are_not_there(self):
        for method, path, status in [("GET", "/", 404), ("GET", "/recor", 404), ("GET", "/record/", 404), ("POST", "/records", 405),
                                     ("GET", "/record", 405), ("DELETE", "/records", 405), ("GET", "/token/websocket", 405),
                                     ("PUT", "/record/a", 405), ("GET", "/ws", 426), ("POST", "/record/atomic/x", 405)]:
            with self.subTest(method=method, path=path):
                response = self.sandbox.request(method, path, "{}" if method in ("POST", "PUT") else None)
                self.assertEqual(status, response.status)

    def test_a_body_that_is_too_large(self):
        self.assertEqual(413, self.sandbox.request("POST", "/record", b"x" * 70000).status)

    def test_a_body_without_a_length(self):
        self.assertEqual(411, self.sandbox.request("POST", "/record", iter([b"{}"])).status)


class Connections(sandbox_case()):
    def test_a_connection_serves_request_after_request(self):
        connection = http.client.HTTPSConnection("localhost", self.sandbox.port, timeout=30, context=trust())
        self.addCleanup(connection.close)
        connection.connect()
        sock = connection.sock
        for i in range(50):
            connection.request("POST", "/record", json.dumps({"key": "k", "value": f"{i}"}), {"x-api-key": API_KEY})
            self.assertEqual(200, (response := connection.getresponse()).status)
            response.read()
            connection.request("GET", "/record/k", headers={"x-api-key": API_KEY})
            self.assertEqual({"key": "k", "value": f"{i}"}, json.loads(connection.getresponse().read()))
        self.assertIs(sock, connection.sock)

    def test_a_large_answer_comes_whole(self):
        for i in range(300):
            self.rest("POST", "/record", {"key": f"l:{i:03}", "value": "\x01" * 3072})
        answer = self.rest("GET", "/records?startKey=l:&endKey=l:~&limit=1000")[1]
        self.assertEqual((300, False), (answer["count"], answer["truncated"]))


if __name__ == "__main__":
    unittest.main()
