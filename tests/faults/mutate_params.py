"""Mutations of the lines and values of a YAML text."""

from random import Random

VALUES = (
    "", "null", "~", "true", "no", "0", "-1", "1e400", ".inf", "-.inf", ".nan", "0x" + "f" * 4000, "9" * 4000,
    "9" * 5000, "2024-01-31", "2024-13-45", "12:30:45", "'text'", '"\\ud800"', '"a\\nb"', "x" * 3000, "größer",
    "[]", "{}", "[1, 2]", "{a: 1}", "[" * 300, "[" * 40 + "]" * 40, "&a [*a]", "*a", "&a 1", "<<",
    "!!python/object/apply:os.system [touch mark]", "!!binary aGk=", "!!binary x", "!!set {a}", "!!omap [a: 1]",
    "!!timestamp x", "!!int x", "!!float ''", "!!bool 7", "!own 1", "|", ">-", "'", '"', "%", "@", "`", "? a", "- 1",
    "os:system", "subprocess:Popen", "antigravity:x", "../../x", "torchvision/" + "x" * 2000, "timm/x",
    "&l [a,a,a,a,a,a,a,a,a]", "[*l,*l,*l,*l,*l,*l,*l,*l,*l]",
)  # fmt: skip
BOMB = "a: &a {k: v}\n" + "".join(
    f"{name}: &{name} {{<<: [{', '.join(['*' + before] * 9)}], k{name}: {name}}}\n"
    for before, name in zip("abcdefghi", "bcdefghij", strict=True)
)


def lines(content: bytes, random: Random) -> bytes:
    """Lines are lost, doubled, moved, or indented otherwise."""
    text = content.splitlines(keepends=True)
    for _ in range(random.choice((1, 1, 3))):
        place = random.randrange(len(text)) if text else 0
        line = text.pop(place) if text else b""
        match random.randrange(5):
            case 1:
                text[place:place] = [line, line]
            case 2:
                text.insert(random.randrange(len(text) + 1), line)
            case 3:
                text.insert(place, random.choice((b" ", b"    ", b"\t", b"- ", b"? ", b"<<: ")) + line)
            case 4:
                text.insert(place, line.lstrip())
    return b"".join(text)


def values(content: bytes, random: Random) -> bytes:
    """What stands behind a colon becomes anything."""
    text = content.splitlines(keepends=True)
    for _ in range(random.choice((1, 1, 2, 5))):
        place = random.randrange(len(text)) if text else 0
        key, colon, _ = (text[place] if text else b"").partition(b":")
        if colon:
            text[place] = key + b": " + random.choice(VALUES).encode() + b"\n"
    if random.random() < 0.05:
        text.insert(0, BOMB.encode())
    return b"".join(text)
