"""The meta-objective written out plainly: one task at a time, one row at a time, one autograd graph, no batching.

An implementation of its own of sections 3 to 5, from the equations: it shares no code with `supmer` except the frozen
backbone and the regularizer's parameters. Works in the dtype of its inputs (float64 in the tests).
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import T5ForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from supmer.tasks.episode import Episode, Example


class Oracle:
    def __init__(self, backbone: T5ForConditionalGeneration, centroids: Tensor) -> None:
        self.backbone, self.centroids = backbone, centroids

    def encode(self, prompt: Tensor, row: Example, width: int) -> tuple[Tensor, Tensor]:
        """Encoder states [L + width, d] and mask of one row padded to `width` text positions."""
        ids = torch.zeros(width, dtype=torch.long)
        ids[: len(row.input_ids)] = torch.as_tensor(row.input_ids, dtype=torch.long)
        vectors = [self.backbone.shared.weight[token] for token in ids]
        for place, cluster in enumerate(row.centroid_ids.tolist()):
            if cluster >= 0:
                vectors[place] = self.centroids[cluster]
        inputs = torch.cat([prompt, torch.stack(vectors)])
        mask = torch.tensor([1] * (len(prompt) + len(row.input_ids)) + [0] * (width - len(row.input_ids)))
        hidden = self.backbone.encoder(inputs_embeds=inputs[None], attention_mask=mask[None]).last_hidden_state[0]
        return hidden, mask

    def log_probabilities(self, hidden: Tensor, mask: Tensor, row: Example) -> Tensor:
        """Log probabilities [D, V] after the decoder inputs pad, <X>, label."""
        decoder_input = torch.tensor([[0, *row.target_ids[:-1].tolist()]])
        encoded = BaseModelOutput(last_hidden_state=hidden[None])
        logits = self.backbone(encoder_outputs=encoded, attention_mask=mask[None], decoder_input_ids=decoder_input).logits
        return torch.log_softmax(logits[0], dim=-1)

    def support(self, prompt: Tensor, episode: Episode, *, exact: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Loss, its gradient (`exact`: with a graph) and the pooled state of a support set (section 3)."""
        if not exact:
            prompt = prompt.detach().requires_grad_()
        losses, states = [], []
        for row in episode.support:
            hidden, mask = self.encode(prompt, row, len(row.input_ids))
            log_probs = self.log_probabilities(hidden, mask, row)
            losses.append(-sum(log_probs[i, token] for i, token in enumerate(row.target_ids.tolist())))
            states.append(hidden.detach())
        loss = torch.stack(losses).mean()
        return loss.detach(), torch.autograd.grad(loss, prompt, create_graph=exact)[0], torch.cat(states).mean(dim=0)

    def query(self, prompt: Tensor, episode: Episode, lam: float) -> Tensor:
        """Outer loss of a query set under an adapted prompt (section 5)."""
        losses = []
        for row, partner in zip(episode.query, episode.augmentation, strict=True):
            width = max(len(row.input_ids), len(partner.input_ids))
            hidden_q, mask_q = self.encode(prompt, row, width)
            hidden_a, mask_a = self.encode(prompt, partner, width)
            log_probs = self.log_probabilities(lam * hidden_q + (1 - lam) * hidden_a, torch.maximum(mask_q, mask_a), row)
            loss = torch.zeros((), dtype=prompt.dtype)
            for place in range(2):
                target = torch.zeros(log_probs.shape[1], dtype=prompt.dtype)
                target[row.target_ids[place]] += lam
                target[partner.target_ids[place]] += 1 - lam
                seen = target > 0
                loss = loss + (target[seen] * (target[seen].log() - log_probs[place][seen])).sum()
            losses.append(loss)
        return torch.stack(losses).mean()


def regularize(phi: dict[str, Tensor], gradient: Tensor, hidden: Tensor, num_layers: int) -> tuple[Tensor, Tensor]:
    """psi_phi, row by row (section 4)."""
    rows = []
    for g in gradient:
        y = g
        for i in range(num_layers):
            y = torch.relu(phi[f"mlp.layers.{i}.u"] @ (phi[f"mlp.layers.{i}.v"] @ y) + phi[f"mlp.layers.{i}.bias"])
        rows.append(y * (g.square().sum().sqrt() + 1e-8) / (y.square().sum().sqrt() + 1e-8))
    inner = torch.relu(phi["mlp.linear_1.weight"] @ hidden + phi["mlp.linear_1.bias"])
    z = torch.sigmoid(phi["mlp.linear_2.weight"] @ inner + phi["mlp.linear_2.bias"])[0]
    return (1 - z) * torch.stack(rows) + z * gradient, z


def meta_objective(
    oracle: Oracle,
    phi: dict[str, Tensor],
    prompt: Tensor,
    episodes: list[Episode],
    lams: list[float],
    inner_lr: float,
    *,
    inner_steps: int = 1,
    num_layers: int = 2,
    exact: bool = False,
) -> dict[str, Tensor | dict[str, Tensor] | list[Tensor]]:
    """Meta-gradients by plain autograd; unless `exact`, g is constant, so that dP'/dP is the identity."""
    prompt = prompt.detach().requires_grad_()
    phi = {name: tensor.detach().requires_grad_() for name, tensor in phi.items()}
    total = torch.zeros((), dtype=prompt.dtype)
    found: dict[str, list[Tensor]] = {"query": [], "gates": [], "support": [], "regularized": [], "support_losses": []}
    for episode, lam in zip(episodes, lams, strict=True):
        adapted, gate, first = prompt, torch.zeros(()), None
        for _ in range(inner_steps):
            loss, g, h = oracle.support(adapted, episode, exact=exact)
            bent, z = regularize(phi, g, h, num_layers)
            adapted = adapted - inner_lr * bent
            if first is None:
                first, gate = bent, z
                found["support"].append(g.detach())
                found["support_losses"].append(loss)
        assert first is not None
        query_loss = oracle.query(adapted, episode, lam)
        outer = torch.autograd.grad(query_loss, adapted, retain_graph=True)[0]
        cosines = torch.nn.functional.cosine_similarity(outer, first.detach(), dim=1)
        own, other = (oracle.centroids[list(c)].mean(dim=0) for c in (episode.clusters, episode.augmentation_clusters))
        cosine_distance = 1 - torch.nn.functional.cosine_similarity(own, other, dim=0)
        agreement = 0.5 * (1 - cosine_distance / 2) + 0.5 * (1 + cosines.mean()) / 2
        total = total + (query_loss + (agreement - gate) ** 2) / len(episodes)
        found["query"].append(query_loss.detach())
        found["gates"].append(gate.detach())
        found["regularized"].append(first.detach())
    gradients = torch.autograd.grad(total, [prompt, *phi.values()])
    return {"prompt": gradients[0], "phi": dict(zip(phi, gradients[1:], strict=True)), **found}
