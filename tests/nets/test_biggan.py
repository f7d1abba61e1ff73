"""The networks of BigGAN against references written down from the equations of its papers, in double precision."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modtrain.nets.biggan import (
    ConditionalBatchNorm,
    Discriminator,
    Generator,
    SelfAttention,
    discriminator_levels,
    generator_levels,
    initialised,
)
from modtrain.nets.orthogonal import OrthogonalForm, orthogonal_penalty
from modtrain.nets.standing_statistics import standing_statistics

Weights = Mapping[str, Tensor]


def randomised(net: nn.Module) -> nn.Module:
    """The network in double precision, in eval mode, with random values in all that it begins with zeros."""
    torch.manual_seed(1)
    for name, value in [*net.named_parameters(), *net.named_buffers()]:
        if name.endswith(("gamma", "bias", "running_mean")):
            nn.init.normal_(value)
        elif name.endswith("running_var"):
            nn.init.uniform_(value, 0.5, 2)
    return net.requires_grad_(False).double().eval()


def converged(net: nn.Module, iterations: int = 100) -> nn.Module:
    """The network after so many power iterations of each spectrally normalised layer."""
    for layer in net.modules():
        if hasattr(layer, "parametrizations"):
            layer.parametrizations.train()
            for _ in range(iterations):
                _ = layer.weight
            layer.parametrizations.eval()
    return net


def by_svd(net: nn.Module) -> dict[str, Tensor]:
    """The weights of a network, those under spectral normalisation divided by their largest singular value."""
    found = dict[str, Tensor]()
    for name, value in net.state_dict().items():
        if name.endswith(".original"):
            layer = name.removesuffix(".parametrizations.weight.original")
            found[f"{layer}.weight"] = value / torch.linalg.svdvals(value.flatten(1))[0]
        else:
            found[name] = value
    return found


def doubled(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


def halved(x: Tensor) -> Tensor:
    return x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).mean((3, 5))


def convolved(x: Tensor, w: Weights, layer: str) -> Tensor:
    weight = w[f"{layer}.weight"]
    return F.conv2d(x, weight, w.get(f"{layer}.bias"), padding=weight.shape[-1] // 2)


def attended(x: Tensor, w: Weights, layer: str) -> Tensor:
    """Zhang et al. 2019, equations 1 to 3, position by position; keys and values are maxima of 2 x 2 positions."""
    query, key, value = (
        torch.einsum("oc,nchw->nohw", w[f"{layer}.{each}.weight"][..., 0, 0], x) for each in ("theta", "phi", "g")
    )
    key, value = (each.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).amax((3, 5)).flatten(2) for each in (key, value))
    energy = torch.einsum("ncij,ncm->nijm", query, key).exp()
    mixed = torch.einsum("nijm,ncm->ncij", energy / energy.sum(-1, keepdim=True), value)
    return x + w[f"{layer}.gamma"] * torch.einsum("oc,nchw->nohw", w[f"{layer}.o.weight"][..., 0, 0], mixed)


def conditionally_normalised(x: Tensor, y: Tensor, w: Weights, layer: str, eps: float) -> Tensor:
    """Running statistics, gain 1 + W y and bias V y."""
    mean, variance = (w[f"{layer}.norm.running_{each}"][:, None, None] for each in ("mean", "var"))
    gain, bias = ((y @ w[f"{layer}.{each}.weight"].T)[..., None, None] for each in ("gain", "bias"))
    return (x - mean) / (variance + eps).sqrt() * (1 + gain) + bias


def reference_generator(w: Weights, noise: Tensor, labels: Tensor, blocks: int, attention: int, eps: float) -> Tensor:
    """Figure 15 a and b of Brock et al. 2019."""
    first, *chunks = torch.tensor_split(noise, blocks + 1, 1)
    h = (first @ w["first.weight"].T + w["first.bias"]).reshape(len(noise), -1, 4, 4)
    for number, chunk in enumerate(chunks):
        y, block = torch.cat([w["shared.weight"][labels], chunk], 1), f"blocks.{number}"
        inner = doubled(conditionally_normalised(h, y, w, f"{block}.norm1", eps).clamp(min=0))
        inner = convolved(inner, w, f"{block}.conv1")
        inner = conditionally_normalised(inner, y, w, f"{block}.norm2", eps).clamp(min=0)
        h = convolved(inner, w, f"{block}.conv2") + convolved(doubled(h), w, f"{block}.skip")
        h = attended(h, w, f"attention.{number}") if number == attention else h
    mean, variance = (w[f"norm.running_{each}"][:, None, None] for each in ("mean", "var"))
    h = (h - mean) / (variance + eps).sqrt() * w["norm.weight"][:, None, None] + w["norm.bias"][:, None, None]
    return torch.tanh(convolved(h.clamp(min=0), w, "last"))


def reference_discriminator(w: Weights, images: Tensor, labels: Tensor, halves: list[bool], attention: int) -> Tensor:
    """Figure 15 a and c of Brock et al. 2019, with the projection of Miyato and Koyama 2018."""
    h = images
    for number, is_halved in enumerate(halves):
        block = f"blocks.{number}"
        inner = convolved(h.clamp(min=0) if number else h, w, f"{block}.conv1").clamp(min=0)
        inner = convolved(inner, w, f"{block}.conv2")
        skip = convolved(h, w, f"{block}.skip") if f"{block}.skip.weight" in w else h
        h = halved(inner) + halved(skip) if is_halved else inner + skip
        h = attended(h, w, f"attention.{number}") if number == attention else h
    features = h.clamp(min=0).sum((2, 3))
    logits = features @ w["logit.weight"][0] + w["logit.bias"]
    return logits + (w["embedding.weight"][labels] * features).sum(1)


SIZES = [(32, 16, 16, 1, 0), (64, 20, 32, 2, 0)]
"""Of the image, the noise and the maps with attention, and the blocks of generator and discriminator that have it."""


@pytest.mark.parametrize(("size", "noise_size", "edge", "with_attention", "_"), SIZES)
def test_the_generator_is_that_of_the_paper(size: int, noise_size: int, edge: int, with_attention: int, _: int) -> None:
    net = Generator(3, noise_size, 5, 2, size, attention=edge, eps=1e-4)
    net = converged(randomised(initialised(net)))
    noise, labels = torch.randn(4, noise_size, dtype=torch.double), torch.tensor([0, 1, 2, 1])
    blocks = len(generator_levels(2, size))
    wanted = reference_generator(by_svd(net), noise, labels, blocks, with_attention, 1e-4)
    torch.testing.assert_close(net(noise, labels), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("size", "_", "edge", "__", "with_attention"), SIZES)
def test_the_discriminator_is_that_of_the_paper(size: int, _: int, edge: int, __: int, with_attention: int) -> None:
    net = converged(randomised(initialised(Discriminator(3, 2, size, attention=edge))))
    images, labels = torch.randn(4, 3, size, size, dtype=torch.double), torch.tensor([0, 1, 2, 1])
    halves = [level.resizes for level in discriminator_levels(2, size)]
    wanted = reference_discriminator(by_svd(net), images, labels, halves, with_attention)
    torch.testing.assert_close(net(images, labels), wanted, rtol=1e-5, atol=1e-5)


def test_in_training_the_conditional_normalisation_has_the_statistics_of_the_batch() -> None:
    net = randomised(ConditionalBatchNorm(3, 2, 1e-5)).train()
    x, y = torch.randn(5, 3, 4, 4, dtype=torch.double) * 3 + 1, torch.randn(5, 2, dtype=torch.double)
    by_hand = (x - x.mean((0, 2, 3), keepdim=True)) / (x.var((0, 2, 3), unbiased=False, keepdim=True) + 1e-5).sqrt()
    gain, bias = 1 + y @ net.gain.weight.T, y @ net.bias.weight.T
    torch.testing.assert_close(net(x, y), by_hand * gain[..., None, None] + bias[..., None, None])


def test_attention_begins_as_the_identity_and_has_a_quarter_of_the_positions_as_keys() -> None:
    net, x = SelfAttention(16), torch.randn(2, 16, 8, 8)
    torch.testing.assert_close(net(x), x, rtol=0, atol=0)
    shapes = {name: tuple(weight.shape[:2]) for name, weight in net.named_parameters() if weight.dim()}
    assert shapes == {"theta.weight": (2, 16), "phi.weight": (2, 16), "g.weight": (8, 16), "o.weight": (16, 8)}


def test_each_chunk_of_the_noise_reaches_the_blocks_from_its_own_on() -> None:
    net = randomised(Generator(2, 16, 4, 2, 32, attention=0, eps=1e-5))
    made: list[Tensor] = []
    for block in net.blocks:
        block.register_forward_hook(lambda _, __, result: made.append(result))
    noise, labels = torch.randn(2, 16, dtype=torch.double), torch.tensor([0, 1])

    def maps(changed: Tensor, labels: Tensor = labels) -> list[Tensor]:
        made.clear()
        net(changed, labels)
        return list(made)

    before = maps(noise)
    for chunk in range(4):
        other = noise.clone()
        other[:, 4 * chunk : 4 * chunk + 4] += 1
        same = [bool(torch.equal(*pair)) for pair in zip(before, maps(other), strict=True)]
        assert same == [number + 1 < chunk for number in range(3)], f"chunk {chunk}"
    assert not any(torch.equal(*pair) for pair in zip(before, maps(noise, 1 - labels), strict=True))


@pytest.mark.parametrize(
    ("size", "generator", "discriminator"),
    [
        (32, [4, 4, 4], [4, 4, 4, 4]),
        (64, [16, 8, 4, 2], [1, 2, 4, 8, 16]),
        (128, [16, 8, 4, 2, 1], [1, 2, 4, 8, 16, 16]),
        (256, [16, 8, 8, 4, 2, 1], [1, 2, 4, 8, 8, 16, 16]),
        (512, [16, 8, 8, 4, 2, 1, 1], [1, 1, 2, 4, 8, 8, 16, 16]),
        (1024, [16, 8, 8, 4, 2, 1, 1, 1], [1, 1, 1, 2, 4, 8, 8, 16, 16]),
    ],
)
def test_the_channels_are_those_of_the_authors_code_at_any_power_of_two(
    size: int, generator: list[int], discriminator: list[int]
) -> None:
    g, d = generator_levels(1, size), discriminator_levels(1, size)
    assert ([level.outputs for level in g], [level.outputs for level in d]) == (generator, discriminator)
    assert (g[0].inputs, g[-1].edge, d[0].inputs, d[-1].edge) == (generator[0], size, 3, 8 if size == 32 else 4)
    with torch.device("meta"):
        chunks = len(g) + 1
        images = Generator(2, chunks, 4, 1, size, attention=16, eps=1e-5)(torch.zeros(2, chunks), torch.zeros(2).long())
        assert images.shape == (2, 3, size, size)
        assert Discriminator(2, 1, size, attention=16)(images, torch.zeros(2).long()).shape == (2,)


@pytest.mark.parametrize(
    ("width", "generator", "discriminator"), [(96, 70_433_988, 87_982_370), (64, 31_978_628, 39_448_258)]
)
def test_at_128_pixels_there_are_as_many_weights_as_published(width: int, generator: int, discriminator: int) -> None:
    """96: what Google's compare_gan counts, 158.3 million in table 1 of the paper; 64: 71.3 million there."""
    with torch.device("meta"):
        g, d = (
            Generator(1000, 120, 128, width, 128, attention=64, eps=1e-5),
            Discriminator(1000, width, 128, attention=64),
        )
    assert sum(weight.numel() for weight in g.parameters()) == generator
    assert sum(weight.numel() for weight in d.parameters()) == discriminator


def test_initial_weights_are_orthogonal_and_bounded_but_the_shared_embedding_is_as_it_is() -> None:
    torch.manual_seed(0)
    nets = (
        initialised(Generator(3, 16, 8, 2, 32, attention=16, eps=1e-5)),
        initialised(Discriminator(3, 2, 32, attention=16)),
    )
    normalised = [{name for name, _ in net.named_parameters() if name.endswith("original")} for net in nets]
    plain = [
        {name for name, weight in net.named_parameters() if weight.dim() > 1 and not name.endswith("original")}
        for net in nets
    ]
    assert plain == [{"shared.weight"}, set()]
    assert {"first.parametrizations.weight.original", "last.parametrizations.weight.original"} < normalised[0]
    assert "blocks.0.norm1.gain.parametrizations.weight.original" in normalised[0]
    assert {"logit.parametrizations.weight.original", "embedding.parametrizations.weight.original"} < normalised[1]
    for net in nets:
        for name, weight in net.named_parameters():
            if weight.dim() > 1:
                matrix = weight.detach().flatten(1)
                products = matrix @ matrix.T if len(matrix) <= matrix.shape[1] else matrix.T @ matrix
                torch.testing.assert_close(products, torch.eye(len(products)), rtol=0, atol=1e-5)
            elif name.endswith("bias"):
                assert not weight.any(), name


@pytest.mark.parametrize("form", ["paper", "reference"])
def test_the_gradient_of_orthogonal_regularisation_is_that_of_its_formula(form: OrthogonalForm) -> None:
    torch.manual_seed(0)
    weight, bias = torch.randn(4, 2, 3, 3, dtype=torch.double, requires_grad=True), torch.randn(4, dtype=torch.double)
    penalty = orthogonal_penalty([weight, bias], form)
    (gradient,) = torch.autograd.grad(penalty, weight)
    w = weight.detach().reshape(4, 18)
    if form == "paper":  # ||W'W * (1 - I)||^2
        products = w.T @ w * (1 - torch.eye(18, dtype=torch.double))
        wanted = 4 * w @ products
        torch.testing.assert_close(penalty, products.square().sum())
    else:  # what the authors' code adds to the gradient
        wanted = 2 * (w @ w.T * (1 - torch.eye(4, dtype=torch.double))) @ w
    torch.testing.assert_close(gradient.reshape(4, 18), wanted)


def test_a_settled_average_has_its_own_statistics_and_singular_values() -> None:
    torch.manual_seed(0)
    live = initialised(Generator(3, 16, 8, 2, 32, attention=0, eps=1e-5)).requires_grad_(False)
    average = copy.deepcopy(live)
    for weight in average.parameters():
        weight.add_(torch.randn_like(weight), alpha=0.3)
    drawn = lambda: (torch.randn(32, 16), torch.randint(3, (32,)))  # noqa: E731
    standing_statistics(average, drawn)
    largest = [
        float(torch.linalg.matrix_norm(layer.weight.flatten(1), 2))
        for layer in average.eval().modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    assert max(abs(value - 1) for value in largest) < 0.05
    noise, labels = torch.randn(256, 16), torch.randint(3, (256,))
    made, wanted = average(noise, labels), average.train()(noise, labels)
    assert abs(float(made.std() / wanted.std()) - 1) < 0.05
