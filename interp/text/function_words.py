"""Words without a meaning of their own. Torch-free."""

_WORDS = """
a an the this that these those such each every either neither both all any some no none many much more most few
less least several enough other another same own what which whose who whom
i me my mine myself you your yours yourself he him his himself she her hers herself it its itself we us our ours
they them their theirs themselves one ones there here
and or but nor so yet if then than because although though while whereas unless until since when where why how
whether as at by for from in into of off on onto out over to toward towards under up upon with within without about
above across after against along among around before behind below beneath beside between beyond despite down during
except inside like near outside past per through throughout via
am is are was were be been being has have had having do does did doing can could may might must shall should will
would not also only just very too even still now again ever never always often once quite rather
"""
FUNCTION_WORDS = frozenset(_WORDS.split())
"""English words of closed classes, and adverbs that go with anything; other languages have no such list here."""


def content_word(text: str) -> bool:
    """Tell whether a token is a word with a meaning of its own: it begins with a space or a capital letter."""
    word = text.strip()
    begins = text[:1].isspace() or word[:1].isupper()
    return begins and word.isalpha() and word.lower() not in FUNCTION_WORDS
