"""Ports of a demo, and the area of its shared leads."""

import socket
from datetime import UTC, datetime, timedelta

import pytest

from marketplace.demo.history.shared_leads import bought_elsewhere
from marketplace.demo.installation import _chosen_port, free_ports
from marketplace.demo.receivers import HOST
from marketplace.demo.world import draw_world
from marketplace.runtime.clock import seeded
from marketplace.runtime.settings import SettingsError, StartError
from tests.builders.service import free_port


def test_the_port_that_was_chosen_is_the_first_and_the_others_differ() -> None:
    port = free_port()
    assert _chosen_port({"MARKETPLACE_PORT": f" {port} ", "MARKETPLACE_KEY": "x"}) == port
    assert _chosen_port({"MARKETPLACE_PORT": " "}) == _chosen_port({}) == 0
    ports = free_ports(port, 5)
    assert ports[0] == port
    assert len(set(ports)) == 5
    with pytest.raises(SettingsError):
        _chosen_port({"MARKETPLACE_PORT": "http"})


def test_a_chosen_port_that_is_taken_is_said() -> None:
    with socket.create_server((HOST, 0)) as listener, pytest.raises(StartError) as raised:
        free_ports(listener.getsockname()[1], 2)
    assert raised.value.code == "address_taken"


def test_a_business_bought_its_other_leads_where_it_works() -> None:
    until = datetime(2026, 11, 1, tzinfo=UTC)
    world = draw_world(1, until)
    builders = [business for business in world.businesses if business.city]
    assert {business.city for business in builders} == set(world.homes)
    for business in builders:
        bought = bought_elsewhere(seeded("x"), world, business, "slug", 30, until - timedelta(weeks=2), until)
        assert {row.postal_code for row in bought} <= set(world.homes[business.city or ""])
