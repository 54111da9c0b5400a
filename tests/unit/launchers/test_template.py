"""Templates as sites have them, what is refused and where, and that nothing outside the grammar is ever evaluated."""

from __future__ import annotations

import ast
import math
import string
import sys
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterd.launchers import arithmetic, expression
from clusterd.launchers.expression import Expression, Refused
from clusterd.launchers.template import MAX_LENGTH, InvalidTemplate, Template

VALUES = {"n": 128, "profile_dir": "/home/a/.ipython/profile_pbs", "queue": "batch", "account": None, "nodes": 4}

RENDERED = {
    "plain": ("#!/bin/sh\necho done\n", "#!/bin/sh\necho done\n"),
    "no line end": ("{n}", "128"),
    "windows": ("#PBS -q {queue}\r\n{n}\r\n", "#PBS -q batch\r\n128\r\n"),
    "settings": ("#PBS -q {queue}\n#PBS -t 1-{n}\n", "#PBS -q batch\n#PBS -t 1-128\n"),
    "spaces": ("{ n }", "128"),
    "arithmetic": ("nodes={n//4}:ppn=4", "nodes=32:ppn=4"),
    "rounded up": ("{(n+11)//12} {-(-n//12)} {ceil(n/12)}", "11 11 11"),
    "whole float": ("{n/4}", "32"),
    "float": ("{nodes/8}", "0.5"),
    "functions": ("{min(n, 64)} {max(n, 200, 3)} {abs(-2)} {int('7') + 1} {len(queue)}", "64 200 2 8 5"),
    "round": ("{round(n/48)} {round(n/48, 2)}", "3 2.67"),
    "choice": ("{'long' if n > 64 else 'short'}", "long"),
    "default": ("{account or 'lab'} {queue or 'x'}", "lab batch"),
    "and": ("{n > 1 and queue}", "batch"),
    "chain": ("{1 < nodes <= 4} {1 < nodes < 4}", "True False"),
    "is set": ("{'-A ' + account if account else ''}", ""),
    "in": ("{'x' if 'gpu' in queue else 'y'}{'x' if 'gpu' not in queue else 'y'}", "yx"),
    "texts": ("{queue + '@' + str(n)} {'-' * 3}", "batch@128 ---"),
    "shell": (
        "cd ${{PBS_O_WORKDIR}} && awk '{{print $1}}' $PBS_NODEFILE",
        "cd ${PBS_O_WORKDIR} && awk '{print $1}' $PBS_NODEFILE",
    ),
    "brace in a text": ("{'}' + '{'}", "}{"),
    "colon in a text": ("{'a:b'}", "a:b"),
    "width": ("{n:05d}|{n:5}|{queue:7s}|", "00128|  128|batch  |"),
    "braces in a row": ("{{{n}}}", "{128}"),
    "shift": ("{1 << 4} {n >> 2} {2 ** 10} {7 % 4} {+n} {not n}", "16 32 1024 3 128 False"),
    "form feed": ("a\fb{n}\n", "a\fb128\n"),
}


@pytest.mark.parametrize("name", RENDERED)
def test_a_template_is_rendered(name):
    text, rendered = RENDERED[name]
    assert Template(text).render(VALUES) == rendered


MISTAKES = {
    "open": ("a\nb {n\n{n}", "t:2:3: a { that is not closed (write {{ for a brace; a field ends on its line)"),
    "single": ("ab } c", "t:1:4: a single } (write }} for a brace)"),
    "empty": ("a{}", "t:1:2: an empty field (write {{}} for braces)"),
    "attribute": ("{n.__class__}", "t:1:2: an attribute (the dot) has no place in an expression"),
    "later attribute": ("é{1 + queue.upper}", "t:1:7: an attribute (the dot) has no place in an expression"),
    "after wide characters": ("{'é' + n.x}", "t:1:8: an attribute (the dot) has no place in an expression"),
    "method": ("{queue.upper()}", "t:1:2: an attribute (the dot) has no place here"),
    "import": ("{__import__('os')}", "t:1:2: this cannot be called (there are abs, "),
    "called result": ("{min(1)(2)}", "t:1:2: this cannot be called"),
    "index": ("{profile_dir[0]}", "t:1:2: an index [...] has no place in an expression"),
    "lambda": ("{(lambda: 1)}", "t:1:10: ` 1)` is no format"),
    "lambda without colon": ("{(yield)}", "t:1:3: this (Yield) has no place in an expression"),
    "comprehension": ("{min(x for x in n)}", "t:1:5: this (GeneratorExp) has no place in an expression"),
    "f-string": ("{f'n'}", "t:1:2: an f-string has no place in an expression"),
    "star": ("{min(*n)}", "t:1:6: a star has no place in an expression"),
    "keyword": ("{round(n, ndigits=1)}", "t:1:19: round() takes no named arguments"),
    "too few": ("{min()}", "t:1:2: min() takes 1 to 16 arguments, not 0"),
    "bytes": ("{b'x'}", "t:1:2: bytes has no place in an expression"),
    "imaginary": ("{1j}", "t:1:2: complex has no place in an expression"),
    "bit and": ("{n & 1}", "t:1:2: this (BinOp) has no place in an expression"),
    "is": ("{n is None}", "t:1:2: this (Compare) has no place in an expression"),
    "backslash": ("{'\\n'}", "t:1:3: a backslash has no place in an expression"),
    "format": ("{n:>30}", "t:1:4: `>30` is no format"),
    "shell default": ("${TMPDIR:-/tmp}", "t:1:10: `-/tmp` is no format (a width, such as {n:4} or {n:04d}; a shell's"),
    "long": ("{" + "n+" * 200 + "n}", "t:1:2: an expression has at most 256 characters"),
    "deep": ("{" + "-" * 100 + "n}", "t:1:34: nested more than 32 levels deep"),
    "infinite": ("{1e999}", "t:1:2: the number is too large"),
    "huge": ("{99999999999999999999}", "t:1:2: the number is too large"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named_with_line_and_column(name):
    text, message = MISTAKES[name]
    with pytest.raises(InvalidTemplate) as caught:
        Template(text, "t")
    assert str(caught.value).splitlines()[0].startswith(message)


@pytest.mark.parametrize(
    "text", ["n = 1", "n n", "n) + (n", "n!r", "n;n", "1 +", "if", "\x00", "del n", "(n", "'", "0n"]
)
def test_what_python_cannot_read_is_no_expression(text):
    with pytest.raises(Refused) as caught:
        Expression(text)
    # Where, Python says, and says it a little differently in each release.
    assert caught.value.message == "this is no expression"
    assert 0 <= caught.value.column <= len(text)


WITHOUT_VALUE = {
    "unknown": ("x\n #{nn}", "t:2:4: there is no setting `nn` (did you mean n?)"),
    "a variable of the shell": (
        "${HOME}",
        "t:1:3: there is no setting `HOME` (a variable of the shell is written ${{HOME}})",
    ),
    "not set": (
        "-A {account}",
        "t:1:5: this is not set (set it in the profile, or write a default: {queue or 'batch'})",
    ),
    "not a number": ("{account + 1}", "t:1:2: a number is needed, not a setting that is not set"),
    "text and number": ("{queue + 1}", "t:1:2: a number is needed, not the text 'batch'"),
    "percent": ("{'%9999999999d' % n}", "t:1:2: a number is needed, not the text '%9999999999d'"),
    "zero": ("{n // (nodes - 4)}", "t:1:2: division by zero"),
    "power": ("{1 + 9 ** 9 ** 9}", "t:1:6: an exponent is at most 64"),
    "large power": ("{n ** 64}", "t:1:2: the number is too large"),
    "float power": ("{(n + 0.5) ** 64 ** 1 * (n + 0.5) ** 64 * 10.0 ** 64}", "t:1:2: the number is too large"),
    "overflow": ("{(10.0 ** 60) ** 60}", "t:1:2: the number is too large"),
    "root": ("{(-8) ** 0.5}", "t:1:2: the root of a negative number"),
    "shift": ("{1 << n}", "t:1:2: a shift is by at most 64 bits"),
    "negative shift": ("{1 << -1}", "t:1:2: negative shift count"),
    "float shift": ("{1 << 1.0}", "t:1:2: a whole number is needed, not 1.0"),
    "repetition": ("{'x' * 99999999}", "t:1:2: a text has at most 65536 characters"),
    "repetition, the other way": ("{99999999 * 'x'}", "t:1:2: a text has at most 65536 characters"),
    "repetition by a part": ("{'x' * 0.5}", "t:1:2: a text is repeated by a whole number"),
    "two texts": ("{'x' * 'y'}", "t:1:2: a text is repeated by a whole number"),
    "growing": ("{('x' * 65536) + 'x'}", "t:1:2: the text is too large"),
    "order of texts": ("{queue < 'a'}", "t:1:2: a number is needed, not the text 'batch'"),
    "in a number": ("{'1' in n}", "t:1:2: `in` looks for a text in a text"),
    "int of words": ("{int(queue)}", "t:1:2: invalid literal for int() with base 10: 'batch'"),
    "int of many": ("{int('1' * 21)}", "t:1:2: too many digits"),
    "len": ("{len(n)}", "t:1:2: len() is of a text"),
    "str of nothing": ("{str(account)}", "t:1:2: str() of a setting that is not set"),
    "digits": ("{round(1.5, 400)}", "t:1:2: round() to at most 15 digits"),
    "format of a text": ("{queue:05d}", "t:1:2: 'batch' cannot be written as `05d`"),
}


@pytest.mark.parametrize("name", WITHOUT_VALUE)
def test_what_has_no_value_is_named_with_line_and_column(name):
    text, message = WITHOUT_VALUE[name]
    with pytest.raises(InvalidTemplate) as caught:
        Template(text, "t").render(VALUES)
    assert str(caught.value) == message


def test_all_mistakes_of_a_template_come_at_once():
    with pytest.raises(InvalidTemplate) as caught:
        Template("{a.b}\n}\n{n}{x[0]} {\n", "pbs.engine.template")
    assert [(mistake.line, mistake.column) for mistake in caught.value.mistakes] == [(1, 2), (2, 1), (3, 5), (3, 11)]
    with pytest.raises(InvalidTemplate) as caught:
        Template("{a} {n}\n{b}").render(VALUES)
    assert [(mistake.line, mistake.column) for mistake in caught.value.mistakes] == [(1, 2), (2, 2)]


def test_mistakes_are_bounded():
    with pytest.raises(InvalidTemplate) as caught:
        Template("}\n" * 5000)
    assert len(caught.value.mistakes) == 100
    with pytest.raises(InvalidTemplate) as caught:
        Template("{a}" * 5000).render({})
    assert len(caught.value.mistakes) == 100


def test_a_script_is_bounded():
    with pytest.raises(InvalidTemplate, match="longer than"):
        Template("x" * (MAX_LENGTH + 1))
    with pytest.raises(InvalidTemplate, match="more than 1048576 characters"):
        Template("{'x' * 65536}" * 17).render({})


def test_the_settings_that_a_template_asks_for_are_known():
    assert Template("{min(n, 64)} {queue or 'x'} {{no}}").names == {"n", "queue"}
    assert Template("none").names == frozenset()


# The grammar that stands in the documentation, generated: everything in it evaluates, or is refused in words.
numbers = st.integers(0, 10**6).map(str) | st.floats(0, 1e6).map(repr)
texts = st.text(string.ascii_letters + "{}:#é ", max_size=5).map(lambda text: f"'{text}'")
names = st.sampled_from(sorted(VALUES))


def grown(inner):
    joined = st.tuples(
        inner, st.sampled_from(["+", "-", "*", "/", "//", "%", "**", "<<", ">>", "<", "==", "in", "and", "or"]), inner
    ).map(lambda parts: f"({parts[0]} {parts[1]} {parts[2]})")
    called = st.tuples(st.sampled_from(sorted(arithmetic.FUNCTIONS)), inner).map(
        lambda parts: f"{parts[0]}({parts[1]})"
    )
    chosen = st.tuples(inner, inner, inner).map(lambda parts: f"({parts[0]} if {parts[1]} else {parts[2]})")
    return joined | called | chosen | inner.map(lambda part: f"(-{part})")


grammatical = st.recursive(numbers | texts | names, grown, max_leaves=12).filter(
    lambda text: len(text) <= expression.MAX_LENGTH
)


def is_within(refused, text):
    assert 0 <= refused.column <= len(text)
    assert refused.message


@given(grammatical)
@settings(max_examples=200, deadline=None)
def test_what_is_in_the_grammar_means_what_it_means_in_python(text):
    try:
        value = Expression(text).evaluate(VALUES)
    except Refused as refused:
        is_within(refused, text)
        return
    plain = eval(text, {"__builtins__": {}, "ceil": math.ceil, "floor": math.floor, **BUILTINS}, dict(VALUES))  # noqa: S307
    assert value == plain
    assert type(value) is type(plain) or isinstance(plain, (int, float))


BUILTINS = {"abs": abs, "int": int, "len": len, "max": lambda x: x, "min": lambda x: x, "round": round, "str": str}

# Anything at all: parts of Python that the grammar leaves out are mixed in, so that more than noise is tried.
pieces = st.sampled_from(
    [
        *"()[]{}.,:+-*/%<>=!&|^~@'\"# \n0123456789",
        "n",
        "queue",
        "min(",
        "lambda ",
        "__class__",
        "__import__('os')",
        " if ",
        " else ",
        " for x in ",
        "**",
        "<<",
        "'x'*",
        "9**9",
        ":=",
        "await ",
        "yield ",
        "f'",
        "b'",
        "...",
        "print(",
        "eval(",
    ]
)
ALLOWED = (
    ast.Constant,
    ast.Name,
    ast.Load,
    ast.BinOp,
    ast.UnaryOp,
    ast.BoolOp,
    ast.Compare,
    ast.IfExp,
    ast.Call,
    ast.operator,
    ast.unaryop,
    ast.boolop,
    ast.cmpop,
)


@given(st.lists(pieces, max_size=40).map("".join))
@settings(max_examples=400, deadline=None)
def test_nothing_outside_the_grammar_becomes_an_expression(text):
    try:
        parsed = Expression(text)
    except Refused as refused:
        is_within(refused, text)
        return
    # An independent reading of what was let through: only these nodes, and calls of our own functions by their names.
    tree = ast.parse(text.strip(), mode="eval").body
    for node in ast.walk(tree):
        assert isinstance(node, ALLOWED), ast.dump(node)
        if isinstance(node, ast.Call):
            assert isinstance(node.func, ast.Name)
            assert node.func.id in arithmetic.FUNCTIONS
        if isinstance(node, ast.Constant):
            assert node.value is None or isinstance(node.value, (int, float, str))
    parsed.names  # noqa: B018 - must not raise


@given(st.text(max_size=300))
@settings(max_examples=300, deadline=None)
def test_any_text_is_a_template_or_is_refused_within_itself(text):
    try:
        rendered = Template(text).render(VALUES)
    except InvalidTemplate as invalid:
        lines = text.split("\n")
        for mistake in invalid.mistakes:
            assert 1 <= mistake.line <= len(lines)
            assert 1 <= mistake.column <= len(lines[mistake.line - 1]) + 1
        return
    if not {"{", "}"} & set(text):
        assert rendered == text


@given(st.text(max_size=200))
def test_doubled_braces_come_out_as_they_were(text):
    assert Template(text.replace("{", "{{").replace("}", "}}")).render({}) == text


# What makes a large thing of a small text: each is refused, or has a small value.
growing = st.lists(
    st.sampled_from(["9", "n", "'x'", "(", ")", "**", "*", "<<", "+", "%", "'%9d'", "99999", "str(", "int(", "2.5"]),
    max_size=60,
).map("".join)


@given(growing)
@settings(max_examples=300, deadline=None)
def test_values_are_bounded(text):
    try:
        value = Expression(text).evaluate({"n": 10**18})
    except Refused:
        return
    if isinstance(value, str):
        assert len(value) <= arithmetic.MAX_TEXT
    elif value is not None:
        assert abs(value) < arithmetic.MAX_INTEGER or isinstance(value, float)


BOMBS = [
    "9**9**9**9**9", "(9**9)**(9**9)", "2**64**64", "1<<9999999999", "1<<(1<<62)", "'x'*(2**62)", "('x'*65536)*65536",
    "'%9999999999d'%1", "int('9'*65536)", "str(2**62)*2**40", "round(1,-2**62)", "round(1.5,2**62)", "(10.0**64)**64",
    "-" * 255 + "1", "(" * 128 + ")" * 128, "(" * 100 + "1" + ")" * 100, "1" * 256, "1" + "+1" * 127, "+".join(["'x'*65536"] * 20),
    "[" * 256, "not " * 63 + "1", "1if " * 60, "'" * 255, "0x" + "f" * 250, "1e999999999", "1_0" * 80,
]  # fmt: skip


@pytest.mark.parametrize("text", BOMBS)
def test_a_bomb_costs_next_to_nothing(text):
    # Counted, not timed: what a busy machine makes slow is not what is tested.
    steps = 0

    def count(*_):
        nonlocal steps
        steps += 1
        return count

    tracemalloc.start()
    before = sys.gettrace()
    sys.settrace(count)
    try:
        Expression(text).evaluate({})
    except Refused:
        pass
    finally:
        sys.settrace(before)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert steps < 100_000
    assert peak < 8 * 1024 * 1024
