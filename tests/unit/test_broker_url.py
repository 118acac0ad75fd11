"""Broker urls: what each form means to redis-py, and what can never work."""

import pytest

from dagster_taskiq_kit.config.broker_url import BrokerUrl, parse_broker_url


@pytest.mark.parametrize(
    "url",
    [
        "redis://h", "redis://h/", "redis://h/15", "rediss://u:p@h:6380/2?ssl_ca_certs=/ca.pem",
        "unix:///run/valkey.sock",
    ],
)  # fmt: skip
def test_one_server_is_left_as_it_is(url):
    assert parse_broker_url(url) == BrokerUrl(url)


def test_sentinels_keep_their_own_credentials():
    parsed = parse_broker_url(
        "rediss+sentinel://user:pa%40ss@s1,s2:26380,[::1]:3/mine/4"
        "?sentinel_username=su&sentinel_password=sp&ssl_cert_reqs=none"
    )
    assert parsed == BrokerUrl(
        "rediss://user:pa%40ss@s1:26379/4?ssl_cert_reqs=none",
        "sentinel",
        (("s1", 26379), ("s2", 26380), ("::1", 3)),
        "mine",
        (("username", "su"), ("password", "sp")),
    )
    assert parsed.tls


def test_a_cluster_has_seeds_and_no_database():
    parsed = parse_broker_url("redis+cluster://[::1]:7000,h2")
    assert parsed == BrokerUrl("redis://[::1]:7000/0", "cluster", (("::1", 7000), ("h2", 6379)))
    assert not parsed.tls


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://h", "is not a broker url: it must look like"),
        ("redis://", "is not a broker url"),
        ("redis://h:port", "is not a broker url"),
        ("redis://:pw@h:6379/notadb", "after the host comes the number of the database"),
        ("rediss://:pw@h:6379/0/1", "after the host comes the number of the database"),
        ("redis://h/-1", "after the host comes the number of the database"),
        ("redis+cluster://", "it names no host"),
        ("redis+cluster://h:6379/3", "a Cluster has database 0 only"),
        ("redis+sentinel://h:26379", "it names no service after the hosts"),
        ("redis+sentinel://h:26379/mine/x", "database 'x' is not a number"),
        ("redis+sentinel://:pw@h:x/mine", "'h:x' is not host:port"),
        ("redis+sentinel://u:pw@:1/mine", "':1' is not host:port"),
    ],
)
def test_what_can_never_work_is_one_sentence_without_the_password(url, why):
    with pytest.raises(ValueError, match="is not a broker url") as caught:
        parse_broker_url(url)
    assert why in str(caught.value)
    assert "pw" not in str(caught.value)
