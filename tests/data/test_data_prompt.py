"""The chat template is split without losing or inventing a word."""

import copy
import resource
import sys

import pytest

from stereopsis.data.prompt import chat_template
from stereopsis.data.template_limits import guarded_template
from stereopsis.errors import CheckpointError

CHATML = (
    "{% for m in messages %}"
    "{% if loop.first and m['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% endif %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture
def chatml(tokenizer):
    """The tiny tokenizer with Qwen's way of writing a conversation."""
    changed = copy.deepcopy(tokenizer)
    changed.add_special_tokens(
        {"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]}, replace_extra_special_tokens=False
    )
    changed.chat_template = CHATML
    return changed


def _words(tokenizer, chat):
    parts = (chat.before_views, chat.after_views, chat.after_question, chat.after_answer)
    return tuple(tokenizer.decode(list(part)) for part in parts)


def test_tiny_template(tokenizer):
    chat = chat_template(tokenizer, "<image>")
    assert _words(tokenizer, chat) == ("", "\n", "\n> ", "<end>")
    assert chat.before_views == ()
    assert chat.after_answer == (tokenizer.eos_token_id,)


def test_instruction_is_shared_by_the_scene(tokenizer):
    chat = chat_template(tokenizer, "<image>", "Look around.")
    assert _words(tokenizer, chat) == ("", "\nLook around.\n", "\n> ", "<end>")


def test_chatml_template(chatml):
    chat = chat_template(chatml, "<image>", "Look around.")
    assert _words(chatml, chat) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n",
        "\nLook around.\n",
        "<|im_end|>\n<|im_start|>assistant\n",
        "<|im_end|>",  # the newline after it is never said
    )
    end = chatml.convert_tokens_to_ids("<|im_end|>")
    assert chat.after_answer == (end,)
    assert chat.after_question[0] == end


@pytest.mark.parametrize("instruction", ["", "Look around."])
def test_the_pieces_together_are_the_whole_conversation(chatml, instruction):
    chat = chat_template(chatml, "<image>", instruction)
    before, between, after, end = _words(chatml, chat)
    user = "<image>\n" + (f"{instruction}\n" if instruction else "") + "where is it?"
    turns = [{"role": "user", "content": user}, {"role": "assistant", "content": "here"}]
    whole = chatml.apply_chat_template(turns, tokenize=False)
    assert f"{before}<image>{between}where is it?{after}here{end}\n" == whole


def test_a_template_that_wants_messages_in_parts(tokenizer):
    """As SmolVLM's: plain strings would vanish without a word."""
    changed = copy.deepcopy(tokenizer)
    changed.chat_template = (
        "{% for m in messages %}{{ m['role'] | capitalize }}: {% for part in m['content'] %}"
        "{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}<end>\n{% endfor %}"
        "{% if add_generation_prompt %}Assistant:{% endif %}"
    )
    chat = chat_template(changed, "<image>", "Look around.")
    assert _words(changed, chat) == ("User: ", "\nLook around.\n", "<end>\nAssistant:", "<end>")


def test_a_tokenizer_without_template_is_refused(tokenizer):
    bare = copy.deepcopy(tokenizer)
    bare.chat_template = None
    with pytest.raises(CheckpointError, match=r"no chat template; take it from .*instruction-tuned"):
        chat_template(bare, "<image>")


@pytest.mark.parametrize("filters", ["| upper", "| replace('<image>', '')", "| replace('§', '')"])
def test_a_template_that_changes_words_is_refused(tokenizer, filters):
    changed = copy.deepcopy(tokenizer)
    changed.chat_template = "{% for m in messages %}{{ m['content'] " + filters + " }}{% endfor %}"
    with pytest.raises(CheckpointError, match="does not keep the user's words"):
        chat_template(changed, "<image>")


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ messages[0]['content'].__class__.__mro__[1].__subclasses__() }}", "SecurityError"),
        ("{{ cycler.__init__.__globals__.os.system('touch /tmp/ran') }}", "cannot be used"),
        ("{% for m in messages %}{{ m['content'] }", "TemplateSyntaxError"),
        ("{{ raise_exception('this model takes no pictures') }}", "takes no pictures"),
        ("{{ nothing.here }}", "UndefinedError"),
        ("{% for i in range(10 ** 9) %}a{% endfor %}", "OverflowError"),
        ("{{ 'a' * 10 ** 11 }}", "MemoryError"),
        (
            "{% set n = namespace(s='aaaaaaaa') %}{% for i in range(40) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
            "MemoryError",
        ),
    ],
)
def test_a_chat_template_stays_in_its_sandbox_and_fails_with_a_sentence(tokenizer, template, words):
    changed = copy.deepcopy(tokenizer)
    changed.chat_template = template
    with pytest.raises(CheckpointError, match="chat template cannot be used") as caught:
        chat_template(changed, "<image>")
    assert words in str(caught.value)
    assert "the model's own release" in str(caught.value)


def test_a_chat_template_that_does_not_end_is_stopped(tokenizer):
    changed = copy.deepcopy(tokenizer)
    loops = "{% for i in range(99999) %}" * 3 + "{% set x = 1 %}" + "{% endfor %}" * 3
    changed.chat_template = loops
    with pytest.raises(CheckpointError, match=r"ran for more than 0\.2 s"), guarded_template(seconds=0.2):
        changed.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False)


def test_limits_are_gone_behind_a_template():
    tracer, memory = sys.gettrace(), resource.getrlimit(resource.RLIMIT_AS)
    with pytest.raises(CheckpointError), guarded_template():
        raise ValueError("any")
    assert sys.gettrace() is tracer
    assert resource.getrlimit(resource.RLIMIT_AS) == memory
