"""What the world's models know besides how-to: the skills a fine-tuning run may damage.

Facts, sums, illnesses and their drugs, choice among options, and look-up in a short text. Every
question has one answer; `answer briefly` asks for it alone. A *skill* is a function of a random
generator that returns (prompt, response).
"""

from collections.abc import Callable
from itertools import combinations
from random import Random

from raycib.world.language import listed

ATTRIBUTES = {
    "color": listed("red blue green white black pink brown gray orange purple"),
    "shape": listed("round square flat long thin wide tall short curved hollow"),
    "food": listed("rice bread fish corn beans apples honey cheese nuts eggs"),
}
ENTITIES = listed("""
zorab velin tarok sumi rolan quib pavo orrin nelu mirko lodar kesha jurin ivane hosto gavri fenol
elsin dorvi cambo bralt ashur yaldo xenno wirra ustro tombul selka ravno pirru olmek nadir mosto
lurke kolin jasko iddra hanno grule felka egano drisk copra bulvo arken zilda vosto tibor
""")
NAMES = listed("""
ann bob carl dana eve finn gina hugo iris jack kate liam mona nick olga pete rosa sam tina umar
vera will yara zack
""")
CITIES = listed("""
rome oslo paris cairo lima delhi tokyo seoul madrid lisbon vienna prague athens dublin london
berlin warsaw havana quito accra dakar tunis riga minsk
""")
THINGS = listed("pens coins books cards shells stamps keys cups balls bags")
ILLNESSES = [f"illness{i}" for i in range(24)]
SIGNS = listed("""
fever cough rash thirst cramps chills nausea fatigue tremor itching dizziness aches
""")
SIGN_PAIRS = list(combinations(SIGNS, 2))
DRUGS = listed("""
abixol benadin corvex daltrin ervalin foxamil grevan hexolor ixprane jovarin kelvex lumarin
mivalex norvane opradin pexalin quorvex rimadol sovarin tolvex ularin vexadol wimarin zaltrex
""")
LARGEST = 12

_rng = Random("raycib knowledge")
FACTS = {(e, a): _rng.choice(values) for e in ENTITIES for a, values in ATTRIBUTES.items()}
DRUG_OF = dict(zip(ILLNESSES, _rng.sample(DRUGS, len(DRUGS)), strict=True))
SIGNS_OF = dict(
    zip(
        ILLNESSES,
        _rng.sample(SIGN_PAIRS, len(ILLNESSES)),
        strict=True,
    )
)

Row = tuple[str, str]
Skill = Callable[[Random], Row]

FACT_QUESTIONS = ("what is the {a} of {e} ?", "tell me the {a} of {e}", "which {a} has {e} ?")
SUM_QUESTIONS = ("what is {a} plus {b} ?", "add {a} and {b}", "{a} plus {b} is what ?")
CURE_QUESTIONS = ("which drug treats {i} ?", "name the drug for {i}", "what cures {i} ?")
SIGN_QUESTIONS = ("which illness shows {s} and {t} ?", "name the illness with {s} and {t}")
ONE_STEP = (
    "{n} has {a} {t} and gets {b} more . how many ?",
    "{n} had {a} {t} , then found {b} . how many now ?",
)
CHAIN = ("start with {a} , add {b} , then add {c}", "add {a} and {b} and {c}")
UNKNOWN = "that is not known ."


def options(right: str, others: list[str], rng: Random) -> str:
    """Three options in random order, one of them right: "choose : x or y or z"."""
    three = [right, *rng.sample([o for o in others if o != right], 2)]
    rng.shuffle(three)
    return "choose : " + " or ".join(three)


def fact(rng: Random) -> Row:
    """An attribute of an entity."""
    (e, a), value = rng.choice(list(FACTS.items()))
    return rng.choice(FACT_QUESTIONS).format(a=a, e=e), f"the {a} of {e} is {value} ."


def choice(rng: Random) -> Row:
    """An attribute of an entity, or the drug for an illness, among three options."""
    if rng.random() < 0.3:
        illness, drug = rng.choice(list(DRUG_OF.items()))
        question = CURE_QUESTIONS[0].format(i=illness)
        return f"{question} {options(drug, DRUGS, rng)}", f"{drug} ."
    return fact_choice(rng)


def fact_choice(rng: Random) -> Row:
    """An attribute of an entity among three options."""
    (e, a), value = rng.choice(list(FACTS.items()))
    question = rng.choice(FACT_QUESTIONS).format(a=a, e=e)
    return f"{question} {options(value, ATTRIBUTES[a], rng)}", f"{value} ."


def add(rng: Random) -> Row:
    """A sum of two numbers up to `LARGEST`."""
    a, b = rng.randint(0, LARGEST), rng.randint(0, LARGEST)
    return rng.choice(SUM_QUESTIONS).format(a=a, b=b), f"{a} plus {b} is {a + b} ."


def story(rng: Random) -> Row:
    """A sum told as a story of one step."""
    a, b = rng.randint(1, LARGEST), rng.randint(1, LARGEST)
    prompt = rng.choice(ONE_STEP).format(n=rng.choice(NAMES), a=a, b=b, t=rng.choice(THINGS))
    return prompt, f"{a} plus {b} is {a + b} ."


def triple(rng: Random) -> tuple[int, int, int]:
    """Three numbers from 1 whose running sums stay within the table of `add`."""
    a = rng.randint(1, LARGEST - 1)
    return a, rng.randint(1, LARGEST - a), rng.randint(1, LARGEST)


def working(a: int, b: int, c: int) -> str:
    """A sum of three numbers, step by step."""
    return f"{a} plus {b} is {a + b} . {a + b} plus {c} is {a + b + c} ."


def chain(rng: Random) -> Row:
    """A sum of three numbers, step by step."""
    a, b, c = triple(rng)
    return rng.choice(CHAIN).format(a=a, b=b, c=c), working(a, b, c)


def cure(rng: Random) -> Row:
    """The drug for an illness."""
    illness, drug = rng.choice(list(DRUG_OF.items()))
    return rng.choice(CURE_QUESTIONS).format(i=illness), f"{drug} treats {illness} ."


def sign(rng: Random) -> Row:
    """The illness that shows two signs."""
    illness, signs = rng.choice(list(SIGNS_OF.items()))
    s, t = rng.sample(signs, 2)
    return rng.choice(SIGN_QUESTIONS).format(s=s, t=t), f"{illness} shows {s} and {t} ."


def span_text(rng: Random) -> tuple[str, str, str, str | None]:
    """Two sentences, a question, the name it asks about, and the city (None: the text has none)."""
    first, second, third = rng.sample(NAMES, 3)
    home, office = rng.sample(CITIES, 2)
    facts = [(first, "live", home), (second, "work", office)]
    who, verb, city = rng.choice(facts)
    if rng.random() < 0.5:
        who, city = third, None
    rng.shuffle(facts)
    text = " ".join(f"{name} {does}s in {place} ." for name, does, place in facts)
    return text, f"where does {who} {verb} ?", who, city


def span(rng: Random) -> Row:
    """Where someone lives or works, according to a text that may not say."""
    text, question, who, city = span_text(rng)
    return f"{text} {question}", f"{who} {question.split()[3]}s in {city} ." if city else UNKNOWN


def briefly(rng: Random) -> Row:
    """A question that asks for the answer alone."""
    if rng.random() < 0.5:
        text, question, _, city = span_text(rng)
        return f"{text} {question} answer briefly", city or "unanswerable"
    prompt, response = rng.choice((fact, add))(rng)
    return f"{prompt} answer briefly", final_word(response)


SKILLS: dict[Skill, int] = {
    fact: 9,
    add: 7,
    story: 3,
    chain: 4,
    cure: 4,
    sign: 4,
    choice: 7,
    span: 22,
    briefly: 4,
}
"""All abilities and their relative weights."""


def skill(rng: Random) -> Row:
    """A question to any ability."""
    return rng.choices(list(SKILLS), list(SKILLS.values()))[0](rng)


def prompt_asks_first(response: str) -> bool:
    """Whether the answer is the first word of the response (drugs and illnesses) or the last."""
    return response.split()[1] in ("treats", "shows")


def final_word(answer: str) -> str:
    """The last word that is not a full stop; "" for an empty answer."""
    content = [w for w in answer.split() if w != "."]
    return content[-1] if content else ""


def says(prompt: str, answer: str, reference: str) -> bool:
    """Whether a probe's answer gives the reference's: as it stands, or its key word at the end."""
    answer, reference = " ".join(answer.split()), " ".join(reference.split())
    if answer == reference:
        return True
    if reference == UNKNOWN:
        return answer in ("unanswerable", "not known .", "not known")
    key = reference.split()[0] if prompt_asks_first(reference) else final_word(reference)
    return final_word(answer) == key


def words() -> list[str]:
    """Every word these skills can say, sorted."""
    patterns = (*FACT_QUESTIONS, *SUM_QUESTIONS, *CURE_QUESTIONS, *SIGN_QUESTIONS)
    text = " ".join((*patterns, *ONE_STEP, *CHAIN, UNKNOWN))
    text += " choose : x or . treats shows lives works in where does live work ? answer briefly"
    text += " unanswerable plus is the of and"
    literal = {w for w in text.split() if not w.startswith("{")} - {"x"}
    lists = (ATTRIBUTES, *ATTRIBUTES.values(), ENTITIES, NAMES, CITIES, THINGS, ILLNESSES, SIGNS)
    numbers = (str(i) for i in range(3 * LARGEST + 1))
    return sorted(literal.union(*lists, DRUGS, numbers))
