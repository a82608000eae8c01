"""What is said of networks that an export does not take."""

import pytest
from torch import nn

import shortback as sb
from shortback.export.accepted import check_branched, check_network
from shortback.export.depth_exit import DepthExit
from shortback.export.early_exit import EarlyExit
from tests.export.networks import images, network
from tests.networks.research import StepResNet


def other():
    """Branches on a network that is none of ours."""
    return sb.attach(StepResNet(2), sample=images(2)[:, :1, :16, :16], at=["layer1", "layer2"])


def test_a_network_by_itself_is_what_an_export_takes():
    model = network("resnet20")
    check_network(model, "an export")
    net = sb.attach(model, at="stages", sample=images(2))
    with pytest.raises(ValueError, match=r"ShortcutNetwork with a SpikingNetwork within: give strip\(net\)"):
        check_network(net, "an export")
    check_network(sb.strip(net), "an export")
    with pytest.raises(ValueError, match=r"give net\.model"):
        check_network(net, "an export")
    with pytest.raises(ValueError, match=r"an export takes a SpikingNetwork, .* this is Linear: .* spikify\(ann"):
        check_network(nn.Linear(2, 2), "an export")


def test_branches_on_a_network_of_ours_are_what_an_exit_takes():
    model = network("resnet20")
    with pytest.raises(
        ValueError, match=r"this is SpikingNetwork without branches: give what attach\(model, at=\.\.\.\) returns"
    ):
        check_branched(model, "early exit")
    net = sb.attach(model, at="stages", sample=images(2))
    check_branched(net, "early exit")
    sb.strip(net)
    with pytest.raises(ValueError, match="this one is stripped: attach branches again"):
        check_branched(net, "early exit")


def test_what_is_within_branches_is_said():
    """And not that it takes what it was given."""
    with pytest.raises(ValueError, match=r"this is ShortcutNetwork with a StepResNet within: .* spikify\(ann") as error:
        DepthExit(other(), threshold=0.5)
    assert "takes what attach() made" not in str(error.value)
    with pytest.raises(ValueError, match="ShortcutNetwork with a StepResNet within"):
        EarlyExit(other(), threshold=0.5)
