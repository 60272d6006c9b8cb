"""The tiny model's tokenizer: byte-level BPE with Qwen's pre-tokenizer, special tokens and chat template."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

END_OF_TEXT, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIAL_TOKENS = [END_OF_TEXT, START, END]
VOCABULARY_SIZE = 2048

# The expression by which Qwen2's published tokenizer.json splits text before merging.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

CHAT_TEMPLATE = (
    "{%- if messages[0]['role'] != 'system' %}"
    "{{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{%- endif %}"
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)

CORPUS = """
system user assistant You are a helpful assistant. Hello, who are you? What can this server do?
A model runs on every host of the rack, and each host answers requests over the network.
The driver talks to the card, the runtime talks to the driver, and the engine talks to the runtime.
Weights are read from disk, checked against their hashes, and placed in the memory of the card.
When power returns after a failure, services start again by themselves and serve the same model.
Please write a short plan, then explain which step comes first and why it matters for people.
Many small machines work together; one slow machine makes all the others wait for its share.
Yesterday the team measured how long a token takes, today they try to make it twice as fast.
Good tools say what they will do, do exactly that, and tell you clearly when something went wrong.
Open the door, follow the river past the old bridge, and you will find a quiet green garden.
Spring brings rain, summer brings light, autumn brings colour, winter brings snow and long nights.
Numbers such as 0 1 2 3 4 5 6 7 8 9 count the cards, the hosts, the users and the answers.
你好 请问 你是谁 我是一个很小的模型 运行在实验室的服务器上
每台主机 都有 自己的地址 模型 从磁盘 读取 权重 然后 回答 问题
今天 天气 很好 我们 一起 学习 写代码 测试 部署 监控 服务
驱动 内核 显卡 内存 网络 存储 电源 温度 正常 完成 失败 重试 成功
"""


def write_tokenizer(folder: Path) -> Tokenizer:
    """Train on CORPUS (deterministic) and write the files that a Qwen2.5 repository has."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE - len(SPECIAL_TOKENS),
        min_frequency=1,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS.splitlines(), trainer)
    tokenizer.add_special_tokens(SPECIAL_TOKENS)  # after the words, as in Qwen's own vocabulary
    tokenizer.save(str(folder / "tokenizer.json"))
    tokenizer.model.save(str(folder))  # vocab.json and merges.txt
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config(tokenizer), indent=2))
    return tokenizer


def tokenizer_config(tokenizer: Tokenizer) -> dict[str, object]:
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    added = {str(tokenizer.token_to_id(token)): {"content": token, **flags} for token in SPECIAL_TOKENS}
    return {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": added,
        "additional_special_tokens": [START, END],
        "bos_token": None,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": END,
        "errors": "replace",
        "model_max_length": 4096,
        "pad_token": END_OF_TEXT,
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }


def word_ids(tokenizer: Tokenizer) -> list[int]:
    """Ids of the tokens that print as a whole word with its space: all that the model may answer with."""
    words = set(re.findall(r"\w\w+", CORPUS))
    decoded = {id_: tokenizer.decode([id_]) for id_ in range(tokenizer.get_vocab_size())}
    return [id_ for id_, text in decoded.items() if text.startswith(" ") and text[1:] in words]
