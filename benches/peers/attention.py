"""Fused attention (SDPA) for transformers' BLIP.

transformers computes BLIP's attention unfused (matmul, softmax, matmul) and has no other for it. These two functions
are its forward passes with `scaled_dot_product_attention` in the middle, as somebody who cares about speed would write
them first.
"""

from torch.nn.functional import scaled_dot_product_attention
from transformers.models.blip.modeling_blip import BlipAttention
from transformers.models.blip.modeling_blip_text import BlipTextSelfAttention


def vision(self, hidden_states, **_):
    """`BlipAttention.forward` with SDPA; nobody asks for the weights."""
    batch, tokens, width = hidden_states.shape
    qkv = self.qkv(hidden_states).reshape(batch, tokens, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
    context = scaled_dot_product_attention(*qkv.unbind(0), scale=self.scale)
    return self.projection(context.transpose(1, 2).reshape(batch, tokens, width)), None


def text(self, hidden_states, attention_mask=None, encoder_hidden_states=None, **_):
    """`BlipTextSelfAttention.forward` of an encoder with SDPA: cross-attention keys have no padding, as there."""
    def heads(states):
        return states.unflatten(-1, (self.num_attention_heads, self.attention_head_size)).transpose(1, 2)

    seen = hidden_states if encoder_hidden_states is None else encoder_hidden_states
    mask = attention_mask if encoder_hidden_states is None else None
    query, key, value = heads(self.query(hidden_states)), heads(self.key(seen)), heads(self.value(seen))
    if mask is not None and mask.is_floating_point():
        mask = mask.to(query.dtype)
    context = scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return context.transpose(1, 2).flatten(2), None


def use_fused():
    """Makes every BLIP of this process attend through the fused kernel from here on."""
    BlipAttention.forward = vision
    BlipTextSelfAttention.forward = text
