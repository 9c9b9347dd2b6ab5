"""A plugin is imported when one of its methods is asked for, and once."""

from __future__ import annotations

import paper_toolbox as pt
import pytest
from paper_toolbox.errors import ParamError, UnknownMethod
from paper_toolbox.host import Host


def test_a_class_and_an_instance() -> None:
    host = Host()
    assert host.method("cross_entropy") is host.method("loss:cross_entropy")
    assert host.build("sgd", lr="3e-4").lr == 3e-4
    assert pt.method("sgd", lr=0.5).lr == 0.5


def test_messages_call_the_method_as_the_user_did() -> None:
    with pytest.raises(ParamError, match=r"^sgd\.lr = -1"):
        pt.method("sgd", lr=-1)
    with pytest.raises(ParamError, match=r"^sgd has no field 'learning_rate'"):
        pt.method("optimizer:sgd", learning_rate=1)


def test_a_name_of_another_kind() -> None:
    with pytest.raises(UnknownMethod, match="no installed plugin offers loss 'sgd'"):
        pt.method("sgd", "loss")


def test_only_what_is_asked_for_is_loaded() -> None:
    host = Host()
    host.method("sgd")
    host.method("sgd")
    assert [name.partition(":")[0] for name, _ in host.manager.list_name_plugin()] == ["paper-toolbox-sgd"]
