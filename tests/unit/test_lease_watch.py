"""Who is silent, by looks at renewals; the clock is the test's."""

from dagster_taskiq_kit.broker import records
from dagster_taskiq_kit.host.first_seen import FirstSeen
from dagster_taskiq_kit.worker.duties.lease_watch import LeaseWatch, Look
from dagster_taskiq_kit.worker.duties.turns import Turn

LEASE_S, RENEW_S = 15, 3


def silent_after(looks):
    watch = LeaseWatch(LEASE_S, RENEW_S)
    for sent_s, answered_s, renewals in looks:
        watch.saw(Look(sent_s, answered_s, renewals))
    return [(each.worker_id, each.renewal) for each in watch.silent()]


def each_round(until_s, renewals=lambda _at_s: {"dead": "1", "alive": "2"}, begin_s=0):
    return [(at, at, renewals(at)) for at in range(begin_s, until_s + 1, RENEW_S)]


def test_only_who_stood_unchanged_for_a_whole_lease_is_silent():
    renewing = lambda at_s: {"dead": "1", "alive": str(at_s)}  # noqa: E731
    assert silent_after(each_round(12, renewing)) == []
    assert silent_after(each_round(15, renewing)) == [("dead", "1")]


def test_a_lease_is_counted_from_an_answer_to_a_question():
    slow = [(at, at + 1, {"dead": "1"}) for at in range(0, 16, RENEW_S)]
    assert silent_after(slow) == []
    assert silent_after([*slow, (18, 19, {"dead": "1"})]) == [("dead", "1")]


def test_a_look_that_was_answered_late_begins_anew():
    frozen = [*each_round(12), (13, 33, {"dead": "1", "alive": "2"})]
    assert silent_after(frozen) == []
    thawed = each_round(45, lambda at_s: {"dead": "1", "alive": str(at_s)}, begin_s=36)
    assert silent_after([*frozen, *thawed]) == []
    later = each_round(51, lambda at_s: {"dead": "1", "alive": str(at_s)}, begin_s=36)
    assert silent_after([*frozen, *later]) == [("dead", "1")]


def test_a_rescuer_that_was_frozen_begins_anew():
    assert silent_after([*each_round(3), (30, 30, {"dead": "1", "alive": "2"})]) == []


def test_who_left_the_registry_and_came_back_is_watched_anew():
    gone = [(at, at, {}) for at in (9,)]
    back = each_round(24, begin_s=12)
    assert silent_after([*each_round(6), *gone, *back]) == []


def test_a_worker_that_forgot_what_it_saw_names_nobody():
    watch = LeaseWatch(LEASE_S, RENEW_S)
    for look in each_round(15):
        watch.saw(Look(*look))
    assert watch.silent()
    watch.forget()
    assert not watch.silent()


class Clock:
    def __init__(self):
        self.now_s = 100.0

    def __call__(self):
        return self.now_s


def test_what_a_look_does_not_find_or_a_pause_may_hide_is_first_seen_anew():
    clock = Clock()
    seen = FirstSeen(60, clock)
    assert seen.look(["a", "b"]) == {"a", "b"}
    clock.now_s += 50
    assert seen.look(["a", "c"]) == {"c"}
    assert (seen.for_s("a"), seen.for_s("b"), seen.for_s("c")) == (50, 0, 0)
    clock.now_s += 10
    assert seen.look(["a", "b", "c"]) == {"b"}
    assert (seen.for_s("a"), seen.for_s("b"), seen.for_s("c")) == (60, 0, 10)
    clock.now_s += 61
    assert seen.look(["a"]) == {"a"}
    assert seen.for_s("a") == 0
    clock.now_s += 20
    assert seen.look_at("a", holds=True) == 20
    assert seen.look_at("z", holds=True) == 0
    clock.now_s += 20
    assert (seen.look_at("a", holds=True), seen.look_at("z", holds=False)) == (40, 0)
    assert seen.look_at("z", holds=True) == 0
    clock.now_s += 61
    assert seen.look_at("a", holds=True) == 0


def test_a_turn_that_stands_still_is_asked_for_as_overdue():
    clock = Clock()
    turn = Turn("duty", "me", 10, clock)

    def asked(answer):
        call = turn.ask()
        return call.arguments[2], call.read(answer)

    assert asked(b"other#1") == ("", False)
    clock.now_s += 20
    assert asked(b"other#2") == ("", False)
    clock.now_s += 20
    assert asked(b"other#2") == ("", False)
    clock.now_s += 10
    assert asked(b"other#2") == ("other#2", False)
    clock.now_s += 10
    assert asked(b"") == ("other#2", True)
    assert asked(b"") == ("", True)
    assert turn.ask().script == records.take_turn("duty", "me").script
