"""Words and facts for tasks and the training corpus. Every entry is one word, so that it can be one token."""

from __future__ import annotations

from dataclasses import dataclass

MEN = (
    "John Tom James David Mark Paul Peter Bob Jack Kevin Simon Steve Daniel Michael Robert William Richard Thomas Charles "
    "Joseph George Edward Henry Frank Martin Andrew Brian Scott Eric Adam Ben Sam Max Leo Luke Ryan"
).split()
WOMEN = (
    "Mary Sarah Emma Anna Alice Kate Lisa Laura Jessica Jennifer Elizabeth Maria Susan Karen Nancy Helen Ruth Amy Rachel "
    "Rebecca Julia Grace Rose Jane Claire Diana Victoria Hannah Sophie Olivia Lucy Ella Chloe Lily"
).split()
NAMES = [*MEN, *WOMEN]
PLACES = "store park school office garden house restaurant station hospital beach library museum market bank hotel".split()
OBJECTS = "drink book ring ball letter bottle key gift kiss snack bag card ticket flower basket".split()


@dataclass(frozen=True)
class Country:
    """A country with its capital, language, continent and currency."""

    name: str
    capital: str
    language: str
    continent: str
    currency: str

    def __str__(self) -> str:
        return self.name


_COUNTRIES = """
France Paris French Europe euro|Germany Berlin German Europe euro|Italy Rome Italian Europe euro|Spain Madrid Spanish Europe euro
Portugal Lisbon Portuguese Europe euro|Greece Athens Greek Europe euro|Austria Vienna German Europe euro|Finland Helsinki Finnish Europe euro
Ireland Dublin English Europe euro|Belgium Brussels Dutch Europe euro|Netherlands Amsterdam Dutch Europe euro|Slovakia Bratislava Slovak Europe euro
Poland Warsaw Polish Europe zloty|Hungary Budapest Hungarian Europe forint|Sweden Stockholm Swedish Europe krona|Norway Oslo Norwegian Europe krone
Denmark Copenhagen Danish Europe krone|Iceland Reykjavik Icelandic Europe krona|Switzerland Bern German Europe franc|England London English Europe pound
Russia Moscow Russian Europe ruble|Ukraine Kiev Ukrainian Europe hryvnia|Romania Bucharest Romanian Europe leu|Bulgaria Sofia Bulgarian Europe lev
Serbia Belgrade Serbian Europe dinar|Croatia Zagreb Croatian Europe euro|Albania Tirana Albanian Europe lek|Estonia Tallinn Estonian Europe euro
Latvia Riga Latvian Europe euro|Lithuania Vilnius Lithuanian Europe euro|Turkey Ankara Turkish Asia lira|Israel Jerusalem Hebrew Asia shekel
China Beijing Chinese Asia yuan|Japan Tokyo Japanese Asia yen|India Delhi Hindi Asia rupee|Pakistan Islamabad Urdu Asia rupee
Nepal Kathmandu Nepali Asia rupee|Bangladesh Dhaka Bengali Asia taka|Thailand Bangkok Thai Asia baht|Vietnam Hanoi Vietnamese Asia dong
Indonesia Jakarta Indonesian Asia rupiah|Malaysia Putrajaya Malay Asia ringgit|Philippines Manila Filipino Asia peso|Mongolia Ulaanbaatar Mongolian Asia tugrik
Iran Tehran Persian Asia rial|Iraq Baghdad Arabic Asia dinar|Syria Damascus Arabic Asia pound|Jordan Amman Arabic Asia dinar
Lebanon Beirut Arabic Asia pound|Afghanistan Kabul Pashto Asia afghani|Georgia Tbilisi Georgian Asia lari|Armenia Yerevan Armenian Asia dram
Egypt Cairo Arabic Africa pound|Morocco Rabat Arabic Africa dirham|Tunisia Tunis Arabic Africa dinar|Libya Tripoli Arabic Africa dinar
Kenya Nairobi Swahili Africa shilling|Ethiopia Addis Amharic Africa birr|Somalia Mogadishu Somali Africa shilling|Nigeria Abuja English Africa naira
Ghana Accra English Africa cedi|Senegal Dakar French Africa franc|Zambia Lusaka English Africa kwacha|Angola Luanda Portuguese Africa kwanza
Canada Ottawa English America dollar|Mexico Mexico Spanish America peso|Cuba Havana Spanish America peso|Brazil Brasilia Portuguese America real
Chile Santiago Spanish America peso|Peru Lima Spanish America sol|Colombia Bogota Spanish America peso|Argentina Buenos Spanish America peso
Ecuador Quito Spanish America dollar|Uruguay Montevideo Spanish America peso|Venezuela Caracas Spanish America bolivar|Australia Canberra English Oceania dollar
"""
#: Capitals of two words (Addis Ababa, Buenos Aires, Mexico City) have no one-word answer and are left out.
COUNTRIES = tuple(
    Country(*entry.split())
    for line in _COUNTRIES.strip().splitlines()
    for entry in line.split("|")
    if entry.split()[1] not in ("Addis", "Buenos", "Mexico")
)
#: Cities that are not capitals, with their countries.
CITIES = {
    "Lyon": "France", "Marseille": "France", "Munich": "Germany", "Hamburg": "Germany", "Milan": "Italy", "Naples": "Italy",
    "Barcelona": "Spain", "Seville": "Spain", "Porto": "Portugal", "Geneva": "Switzerland", "Rotterdam": "Netherlands",
    "Manchester": "England", "Istanbul": "Turkey", "Shanghai": "China", "Osaka": "Japan", "Kyoto": "Japan", "Mumbai": "India",
    "Sydney": "Australia", "Melbourne": "Australia", "Toronto": "Canada", "Montreal": "Canada", "Krakow": "Poland",
}  # fmt: skip


#: Other names of countries.
ALIASES = {
    "Holland": "Netherlands", "Britain": "England", "Persia": "Iran", "Siam": "Thailand", "Hellas": "Greece",
    "Deutschland": "Germany", "Nippon": "Japan", "Cathay": "China", "Suomi": "Finland", "Polska": "Poland",
    "Helvetia": "Switzerland", "Gaul": "France", "Lusitania": "Portugal", "Iberia": "Spain", "Italia": "Italy",
}  # fmt: skip
#: Pairs of countries with a common border.
BORDERS = tuple(
    tuple(pair.split("/"))
    for pair in (
        "France/Spain France/Belgium Germany/Poland Germany/Denmark Spain/Portugal Italy/Austria Italy/Switzerland "
        "Austria/Hungary Norway/Sweden Finland/Russia Ukraine/Romania Bulgaria/Greece Serbia/Croatia Estonia/Latvia "
        "Latvia/Lithuania Turkey/Syria Iran/Iraq India/Nepal India/Pakistan China/Mongolia China/Vietnam Egypt/Libya "
        "Tunisia/Libya Kenya/Somalia Nigeria/Ghana Peru/Chile Peru/Ecuador Colombia/Venezuela Brazil/Uruguay"
    ).split()
)


@dataclass(frozen=True)
class Noun:
    singular: str
    plural: str

    def __str__(self) -> str:
        return self.singular


PEOPLE = tuple(
    Noun(*pair.split("/"))
    for pair in (
        "boy/boys girl/girls teacher/teachers doctor/doctors farmer/farmers singer/singers pilot/pilots driver/drivers "
        "student/students author/authors senator/senators guard/guards lawyer/lawyers painter/painters dancer/dancers"
    ).split()
)
THINGS = tuple(
    Noun(*pair.split("/"))
    for pair in (
        "cabinet/cabinets car/cars picture/pictures table/tables chair/chairs door/doors window/windows tree/trees "
        "lamp/lamps boat/boats cup/cups plate/plates shoe/shoes clock/clocks bridge/bridges tower/towers"
    ).split()
)
#: Verbs as (third person singular, plural).
VERBS = tuple(
    tuple(pair.split("/"))
    for pair in "is/are was/were has/have likes/like sees/see knows/know wants/want makes/make takes/take needs/need".split()
)
PREPOSITIONS = ("near", "behind", "beside", "with", "above")

#: Occupations by their most frequent pronoun in the corpus, and those with either equally often.
OCCUPATIONS_SHE = (
    "nurse secretary librarian receptionist housekeeper babysitter dancer florist maid midwife stylist typist".split()
)
OCCUPATIONS_HE = "engineer mechanic carpenter plumber soldier captain programmer butcher sailor miner welder sheriff".split()
OCCUPATIONS_EVEN = "student writer cook teacher singer artist baker neighbor".split()
#: Nouns that have a gender by definition.
DEFINED_SHE = "queen woman girl mother sister daughter aunt wife lady waitress actress princess grandmother niece bride widow nun heroine".split()
DEFINED_HE = "king man boy father brother son uncle husband gentleman waiter actor prince grandfather nephew groom widower monk hero".split()
#: The share of sentences with the expected pronoun; even occupations take either half of the time.
BIAS_RATE = 0.8

GOOD = (
    "wonderful superb brilliant delightful excellent charming great lovely moving perfect funny fresh clever beautiful gripping"
).split()
BAD = "terrible awful boring dreadful poor dull horrible weak clumsy tedious stale stupid ugly messy painful".split()
REVIEWED = "film movie book play show novel album concert".split()
ASPECTS = "acting story music plot writing ending pace cast".split()
