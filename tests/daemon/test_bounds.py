"""Each row of the table "Bounds" in doc/architecture.md is shown reached and held by a test: the list of them, and those that belong to no other file."""

import contextlib
import json
import os
import re
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "gateway"))
import test_gateway_config # noqa: E402 (the path comes first)
from gateway import Gateway, GatewayCase # noqa: E402
from harness import ROOT, Case, Daemon, FakeService, eventually, get, mebibytes, put, sanitized # noqa: E402
from test_mirror import Records, whole # noqa: E402

DAEMON, GATEWAY, TRANSPORT, UNIT = "daemon/test_{}.py", "gateway/test_{}.py", "transport/test_{}.py", "unit/{}.c"

# The beginning of a row: (file, test), which may be the beginning of several names.
BOUNDS = [
    ("clients", (DAEMON, "many_clients", "test_beyond_max_clients"), (DAEMON, "many_clients", "test_accepting_pauses_and_goes_on")),
    ("refused clients", (DAEMON, "many_clients", "test_who_is_refused_does_not_stay")),
    ("clients not accepted yet", (DAEMON, "many_clients", "test_accepting_pauses_and_goes_on")),
    ("input of a client", (DAEMON, "framing", "test_a_line_of_one_byte_more"), (DAEMON, "hostile", "test_lines_that_never_end_hold")),
    ("bytes that are read of a client", (UNIT, "clients/client", "the_more_are_read_the_less_of_each")),
    ("time in which lines of a client", (UNIT, "clients/client", "of_lines_that_take_long"), (UNIT, "clients/client", "of_lines_that_were_held"),
     (UNIT, "clients/client", "those_whose_lines_take_long_take_turns")),
    ("places that are kept for clients", (UNIT, "requests/router", "places_are_kept_for_such_clients_for_a_while")),
    ("unanswered requests of a client, subscribes", (DAEMON, "backpressure", "test_ten_thousand_requests_are_read_as_far_as_max_pipeline")),
    ("unsent requests of a client", (DAEMON, "limits", "test_that_wait_of_a_client"), (UNIT, "requests/router", "nobody_takes_all_the_room")),
    ("unsent requests of all", (DAEMON, "limits", "test_that_wait_of_all_clients")),
    ("requests in flight", (DAEMON, "backpressure", "test_max_in_flight_is_never_exceeded")),
    ("writes that were given up", (UNIT, "requests/blame", "who_waits_for_a_forgotten_write_goes_on")),
    ("a request as it is sent", (DAEMON, "poison", "test_any_op_whose_frame_is_longer")),
    ("users whose clients left", (UNIT, "requests/blame", "more_users_than_are_remembered"), (UNIT, "requests/blame", "losses_are_forgotten")),
    ("a request's time", (DAEMON, "deadlines", "test_no_answer_in_time"), (DAEMON, "deadlines", "test_a_client_that_has_left_keeps_no_place")),
    ("unread output of a client", (DAEMON, "slow_reader", "test_beyond_output_hard"), (DAEMON, "backpressure", "test_beyond_output_hard")),
    ("short lines of a client", (UNIT, "base/outq", "lines_that_are_gathered_share_an_iovec")),
    ("bookkeeping of conflated", (DAEMON, "slow_reader", "test_a_hundred_megabytes_of_many_keys")),
    ("subscriptions", (DAEMON, "limits", "test_of_a_client"), (DAEMON, "limits", "test_of_all"), (DAEMON, "limits", "test_of_different_keys"),
     (DAEMON, "limits", "test_of_their_memory")),
    ("... to patterns with text behind", (DAEMON, "scale", "test_patterns_that_go_on_behind_a_star")),
    ("names that waiting subscribes", (DAEMON, "bounds", "test_names_of_subscribes_that_wait")),
    ("the list of a token", (UNIT, "subscriptions/token_scope", "whatever_is_wanted_is_told_within_the_budget"),
     (UNIT, "upstream/credentials", "tokens_that_do_not_grow_allow_long_lists")),
    ("a token request", (TRANSPORT, "token_client", "test_too_long_answer"), (TRANSPORT, "token_client", "test_too_many_headers"),
     (TRANSPORT, "token_client", "test_silence")),
    ("requests of clients for tokens", (DAEMON, "limits", "test_for_tokens"), (UNIT, "access/token_requests", "the_memory_of_all_is_bounded"),
     (UNIT, "access/token_requests", "so_many_at_once_and_no_faster")),
    ("connections", (UNIT, "upstream/connections", "so_many_are_enough"), (UNIT, "upstream/upstream", "many_that_still_wait_for_answers")),
    ("changes of the connection", (UNIT, "upstream/handover_pace", "they_are_few"), (DAEMON, "handover_pace", "test_a_hundred_within_a_second")),
    ("names without subscribers", (UNIT, "subscriptions/topics", "so_many_topics_that_were_left_are_listed"),
     (UNIT, "subscriptions/topics", "topics_that_were_left_take_no_room")),
    ("requests, places in flight", (DAEMON, "budgets", "test_what_can_not_be_had_in_time"), (DAEMON, "budgets", "test_no_more_are_in_flight"),
     (DAEMON, "budgets", "test_no_more_clients_than_that"), (DAEMON, "budgets", "test_taken_whole_or_not_at_all")),
    ("useless lists in a row", (UNIT, "upstream/upstream", "refused_lists")),
    ("unsent bytes of a connection", (TRANSPORT, "websocket", "test_peer_that_stops_reading"),
     (TRANSPORT, "websocket", "test_the_kernel_is_given_little_more"), (UNIT, "transport/conn", "a_full_queue_takes_no_more")),
    ("a message of the service", (DAEMON, "limits", "test_a_message"), (UNIT, "transport/conn", "parts_of_a_message_count_for_a_while")),
    ("... as announced by its header", (UNIT, "transport/receive", "refused_at_the_header")),
    ("answers to pings", (TRANSPORT, "websocket", "test_a_flood_of_pings")),
    ("the request for an upgrade", (TRANSPORT, "websocket", "test_longest_path")),
    ("the answer to an upgrade", (UNIT, "transport/upgrade", "too_long"), (TRANSPORT, "websocket_end", "test_what_a_refusal_says")),
    ("the service's own words", (UNIT, "transport/error_text", "cut")),
    ("name queries", (TRANSPORT, "resolver", "test_more_than_fit"), (TRANSPORT, "resolver", "test_three_are_used")),
    ("addresses connecting at once", (TRANSPORT, "dial", "test_many_black_holes")),
    ("a proxy's answer", (TRANSPORT, "dial", "test_a_huge_head")),
    ("changes compared during a handover", (UNIT, "upstream/handover", "bounds"), (UNIT, "upstream/handover", "crowds"),
     (DAEMON, "limits", "test_what_is_held_while_a_connection_is_replaced")),
    ("what is remembered", (DAEMON, "cache", "test_what_was_used_last_is_kept"), (DAEMON, "mirror", "test_one_that_does_not_fit")),
    ("unanswered requests of a client that may change", (DAEMON, "bounds", "test_a_read_behind_very_many_of_its_client")),
    ("keys of mirrors read again", (DAEMON, "bounds", "test_keys_of_mirrors_read_again_at_once")),
    ("a page of a mirror", (DAEMON, "mirror", "test_pages_that_are_too_long_become_shorter")),
    ("patterns of `[cache]`", (DAEMON, "bounds", "test_patterns_of_the_cache")),
    ("companions of a request", (UNIT, "requests/companions", "searches_of_one_moment_share_their_steps"), (DAEMON, "bounds", "test_companions_count_as_if_they_waited")),
    ("keys read for subscribers", (UNIT, "subscriptions/subscriptions", "so_many_keys_are_read_at_once"),
     (UNIT, "subscriptions/subscriptions", "a_reading_with_too_much_held_back")),
    ("keys that wait to be read", (UNIT, "subscriptions/subscriptions", "a_key_that_is_lost_twice_is_read_once")),
    ("pauses that the service asks for", (UNIT, "upstream/upstream", "a_pause_that_is_asked_for_is_kept"), (UNIT, "transport/error_text", "retry_after")),
    ("memory kept for new requests", (UNIT, "requests/requests", "what_a_pool_keeps_is_bounded")),
    ("the head of an HTTP request", (GATEWAY, "conduct", "test_head_floods"), (GATEWAY, "conduct", "test_a_head_that_does_not_come"),
     (GATEWAY, "conduct", "test_longer_than_max_line"), (GATEWAY, "conduct", "test_a_body_that_does_not_come")),
    ("the line before a chunk", (GATEWAY, "conduct", "test_trailer_and_chunk_line_floods")),
    ("requests of an HTTP connection", (UNIT, "gateway/http", "no_more_than_may_be_are_taken"), (GATEWAY, "conduct", "test_more_than_max_pipeline")),
    ("responses made ahead", (UNIT, "gateway/http", "a_stream_leaves_much_in_the_queue"), (GATEWAY, "conduct", "test_slow_reader")),
    ("a TCP connection that has shown no local key", (UNIT, "gateway/http", "a_client_without_a_key_is_not_waited_for"),
     (GATEWAY, "conduct", "test_a_head_that_does_not_come")),
    ("TCP connections that have shown none", (GATEWAY, "local_keys", "test_who_shows_no_key_keeps_nobody_out")),
    ("an HTTP connection that has got all", (DAEMON, "bounds", "test_an_http_connection_that_has_got_all")),
    ("addresses of `http_address`", (GATEWAY, "gateway_config", "test_addresses")),
    ("requests to HPKV Nexus", (GATEWAY, "nexus", "test_order_and_bounds")),
    ("... and an answer", (DAEMON, "bounds", "test_an_answer_of_nexus")),
    ("a message of a WebSocket client", (UNIT, "codec/ws_frames", "a_message_that_is_too_long_is_skipped"),
     (GATEWAY, "websocket", "test_a_message_that_is_too_long")),
    ("tokens of the service that are remembered", (UNIT, "access/tokens", "the_oldest_are_forgotten")),
    ("a local token; its access pattern", (DAEMON, "bounds", "test_a_local_token"), (UNIT, "access/access_pattern", "long_and_huge_patterns")),
    ("matching an access pattern", (UNIT, "access/access_pattern", "a_pattern_that_runs_into_the_bounds"),
     (UNIT, "access/access_pattern", "the_bound_of_steps_is_ours")),
    ("connections to the metrics page", (DAEMON, "metrics", "test_who_says_nothing_or_reads_nothing"), (DAEMON, "metrics", "test_nonsense_is_refused")),
    ("log", (DAEMON, "nonblocking", "test_nobody_reads_the_log")),
]


class Table(unittest.TestCase):
    @staticmethod
    def rows():
        with open(f"{ROOT}/doc/architecture.md", encoding="utf-8") as f:
            text = f.read()
        table = text[text.index("\n## Bounds\n"):]
        table = table[table.index("|---|"):table.index("\n\nThe worst case")]
        return [line.split("|")[1].strip() for line in table.splitlines()[1:]]

    def test_each_row_has_its_tests(self):
        rows = self.rows()
        self.assertEqual(len(rows), len(BOUNDS), "a row of doc/architecture.md, or of BOUNDS, has no partner")
        for row, (name, *_) in zip(rows, BOUNDS):
            self.assertTrue(row.startswith(name), f"the row {row!r} of doc/architecture.md is {name!r} in BOUNDS")

    def test_which_are_there(self):
        for name, *tests in BOUNDS:
            self.assertTrue(tests, name)
            for folder, file, test in tests:
                with open(f"{ROOT}/tests/{folder.format(file)}", encoding="utf-8") as f:
                    self.assertRegex(f.read(), rf"\b{re.escape(test)}", f"{name}: {folder.format(file)}")


class Cache(test_gateway_config.Settings):
    """The check of a configuration that the tests of the gateway have."""

    def test_patterns_of_the_cache(self):
        patterns = " ".join(f"k{n}:*" for n in range(40)), " ".join(f"m{n}:*" for n in range(24))
        self.right("[cache]\nkeys = {}\nmirror = {}\n".format(*patterns))
        self.wrong("[cache]\nkeys = {} one-more\nmirror = {}\n".format(*patterns), "64")


for inherited in [name for name in dir(test_gateway_config.Settings) if name.startswith("test_")]: # they are cases of that file
    setattr(Cache, inherited, None)


class Requests(Case):
    def test_keys_of_mirrors_read_again_at_once(self):
        store = Records({f"m:{n}": "v" for n in range(100)})
        with FakeService(answer=store) as store.service, Daemon(store.service, mirror="m:*") as daemon, daemon.client() as client:
            whole(daemon)
            service, before = store.service, len(store.service.requests)
            service.answer = None
            for n in range(100):
                store.change(f"m:{n}", "w")
            service.wait(lambda: len(service.requests) == before + 16, "16 reads")
            client.barrier()
            service.all_told()
            client.barrier()
            self.assertEqual(before + 16, len(service.requests))
            service.answer = store
            for request in service.requests[before:]:
                store(request)
            eventually(lambda: client.ask(get("m:99")).get("value") == "w", "all are read in the end")

    def test_a_read_behind_very_many_of_its_client(self):
        """Is answered from memory at once behind up to 256 unanswered ones of other keys; behind more it waits for its turn."""
        store = Records({"m:1": "v"})
        with FakeService(answer=store) as store.service, Daemon(store.service, mirror="m:*") as daemon, daemon.client() as client:
            whole(daemon)
            service = store.service
            service.answer = None
            begun = len(service.requests)
            for n, cached in ((256, True), (1, False)):
                client.send(*(put(f"other:{begun}:{i}", "v", f"other {n} {i}") for i in range(n)), get("m:1", f"read {n}"))
                if cached:
                    self.assertEqual({"code": 200, "messageId": "read 256", "key": "m:1", "value": "v", "cached": True}, client.answer())
                service.wait(lambda: len(service.requests) >= begun + 256, "256 requests")
            client.barrier()
            service.answer = store
            for request in service.requests[begun:]:
                store(request)
            answers = {a["messageId"]: a for a in client.answers(258)}
            self.assertEqual((200, "v"), (answers["read 1"]["code"], answers["read 1"]["value"]))

    def test_companions_count_as_if_they_waited(self):
        """Those that go along with a get that was sent are charged to max_queued."""
        with FakeService(answer=None) as service, Daemon(service, max_in_flight=1, max_queued="64K", max_line="1K", combine="gets", request_timeout="10m") as daemon, \
                daemon.client() as client, contextlib.ExitStack() as stack:
            daemon.wait_state("connected")
            client.send(get("busy"))
            busy = service.next_request()
            clients = []
            while daemon.stats()["requests_queue_full"] == 0:
                clients.append(stack.enter_context(daemon.client()))
                clients[-1].send(*(get("k" * 500, n) for n in range(4)))
                self.assertLess(len(clients), 300)
            busy.reply(key="busy", value="v")
            together = service.next_request() # all of them
            eventually(lambda: daemon.status()["upstream"]["queued"] == 0, "that nothing waits")
            self.assertGreater(daemon.stats()["requests_waiting_bytes"], 32 << 10)
            service.answer = lambda request: request.reply(key=request.key, value="v")
            together.reply(key="k" * 500, value="v")
            self.assertEqual("v", clients[0].answer()["value"])
            eventually(lambda: daemon.stats()["requests_waiting_bytes"] == 0, "that nothing is charged any more")

    def test_names_of_subscribes_that_wait(self):
        """Even if the client is subscribed to all of them already."""
        names = [f"k{n}" for n in range(10)]
        with FakeService() as service, Daemon(service, max_client_subscriptions=10, request_timeout="10m") as daemon, daemon.client() as client:
            client.subscribe(keys=names)
            service.stop_listening()
            service.hang_up()
            self.assertEqual("disconnected", client.answer()["state"])
            client.send({"op": "subscribe", "keys": names, "messageId": 1}, {"op": "subscribe", "key": "k0", "messageId": 2})
            answer = client.answer()
            self.assert_error(answer, 503, "queue_full", "no", 2)
            self.assertIn("wait to be made", answer["error"])
            service.listen()
            while (answer := client.answer()).get("messageId") != 1: # what was missed is told meanwhile
                pass
            self.assertEqual(200, answer["code"])


class Gate(GatewayCase):
    def test_an_http_connection_that_has_got_all(self):
        _, gateway = self.scene()
        c = self.tcp(gateway)
        self.assertEqual(200, c.ask("GET", "/hpkvd/ready", headers={"Connection": "close"}, host="localhost").status)
        gateway.wait_status(lambda s: s["clients"] == 1, "that it is closed, though its client does nothing")

    def test_a_local_token(self):
        """The longest has 12,000 bytes."""
        access = {"some": {"local_key_file": "local-key", "read": "*"}}
        _, gateway = self.scene(access=access)
        def ask(**wish):
            return gateway.ask_tcp("POST", "/token/websocket", wish)

        longest = 0
        for n in range(1, 1200, 20):
            response = ask(subscribeKeys=[f"key:{i}" for i in range(n)])
            if response.status != 200:
                break
            longest = len(response.json["token"])
        self.assert_refused(response, 400, "bad_request")
        self.assertIn("too many for one token", response.json["error"])
        self.assertTrue(11000 < longest <= 12000, longest)
        self.assertEqual(200, ask(accessPattern="a" * 8000).status)
        self.assert_refused(ask(accessPattern="a" * 8193), 400, "bad_request")

    def test_an_answer_of_nexus(self):
        from test_nexus import BODY, Nexus
        nexus = self.open(Nexus())
        service = self.open(FakeService())
        gateway = self.open(Gateway(service, nexus_url=nexus.url, access={"a": {"user": os.geteuid(), "local_key_file": "local-key", "nexus": "yes"}}))
        gateway.wait_state("connected")
        c = self.http(gateway)
        for n, statuses in ((250 << 10, (200,)), (260 << 10, (502, 504))):
            nexus.answer = (200, {}, json.dumps({"x": "y" * n}))
            self.assertIn(c.ask("POST", "/search", BODY).status, statuses, n)


class Memory(Case):
    SETTINGS = {"max_clients": 40, "output_soft": "64K", "output_hard": "1M", "max_queued": "1M", "max_client_queued": "256K", "subscription_memory": "1M",
                "max_held": "1M", "max_message": "64K", "max_in_flight": 64}

    @unittest.skipIf(sanitized(), "a sanitizer's memory says nothing")
    def test_all_that_an_enemy_can_hold_at_once(self):
        """Clients that read nothing hold output up to output_hard and three times that in all, and subscriptions, requests and lines within their bounds."""
        clients = 36
        bound = clients * (3 << 20 | 3 << 16) + (1 << 20) + 64 * 2 * 65536 + (1 << 20) + (1 << 20) + 18 * 65536
        with FakeService() as service, Daemon(service, **self.SETTINGS, level="info", keepalive="1m") as daemon, daemon.client() as good, \
                contextlib.ExitStack() as stack:
            daemon.wait_state("connected")
            good.barrier()
            before = daemon.process.resident_bytes()
            enemies = [stack.enter_context(daemon.client()) for _ in range(clients)]
            for n, enemy in enumerate(enemies):
                enemy.send({"op": "subscribe", "pattern": "*"}, {"op": "subscribe", "keys": [f"{n}:{i}:" + "k" * 300 for i in range(100)], "messageId": 1})
            good.barrier()
            most = 0
            for n in range(60):
                service.publish(f"change:{n}", "v" * 60000)
                for enemy in enemies if n % 6 == 0 else ():
                    with contextlib.suppress(OSError): # it was dropped
                        enemy.fill(b"".join(json.dumps(put(f"k{i}", "x" * 30000, i)).encode() + b"\n" for i in range(3)) + b"x" * 65536)
                self.assertEqual(200, good.ask(get("k"))["code"])
                most = max(most, daemon.process.resident_bytes() - before)
            self.assertLess(most, bound + mebibytes(4))


if __name__ == "__main__":
    unittest.main()
