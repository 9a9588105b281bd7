"""Date, Time, DateAndTime and Duration, on Python's datetime."""

from __future__ import annotations

import datetime
import time
from typing import Any

from neuroscope_dsl.runtime import arithmetic
from neuroscope_dsl.runtime.classes import SmalltalkClass, define
from neuroscope_dsl.runtime.numbers import Magnitude, Number

Date = define("Date", Magnitude, datetime.date)
DateAndTime = define("DateAndTime", Magnitude, datetime.datetime)
Time = define("Time", Magnitude, datetime.time)
Duration = define("Duration", Magnitude, datetime.timedelta)

for _owner in (Date, DateAndTime, Time, Duration):
    _owner.methods["<"] = arithmetic.less
    _owner.methods[">"] = arithmetic.greater
    _owner.methods["<="] = arithmetic.less_equal
    _owner.methods[">="] = arithmetic.greater_equal


@Date.class_method("today")
def today(receiver: SmalltalkClass) -> datetime.date:
    return datetime.date.today()


@Date.class_method("year:month:day:")
def date(receiver: SmalltalkClass, year: int, month: int, day: int) -> datetime.date:
    return datetime.date(year, month, day)


@DateAndTime.class_method("now")
def now(receiver: SmalltalkClass) -> datetime.datetime:
    return datetime.datetime.now().astimezone()


@DateAndTime.class_method("year:month:day:hour:minute:second:")
def date_and_time(receiver: SmalltalkClass, *parts: int) -> datetime.datetime:
    return datetime.datetime(*parts)  # type: ignore[arg-type]


@Time.class_method("now")
def time_now(receiver: SmalltalkClass) -> datetime.time:
    return datetime.datetime.now().time()


@Time.class_method("millisecondClock", "millisecondClockValue", "milliseconds")
def millisecond_clock(receiver: SmalltalkClass) -> int:
    return round(time.monotonic() * 1000)


@Time.class_method("microsecondClock", "microsecondClockValue")
def microsecond_clock(receiver: SmalltalkClass) -> int:
    return round(time.monotonic() * 1_000_000)


@Time.class_method("millisecondsToRun:")
def milliseconds_to_run(d: Any, receiver: SmalltalkClass, block: Any) -> int:
    start = time.perf_counter()
    d.value(block)
    return round((time.perf_counter() - start) * 1000)


def _part(owner: SmalltalkClass, attribute: str, *selectors: str) -> None:
    @owner.method(*selectors)
    def part(receiver: Any) -> Any:
        return getattr(receiver, attribute)


for _owner in (Date, DateAndTime):
    _part(_owner, "year", "year")
    _part(_owner, "month", "month", "monthIndex")
    _part(_owner, "day", "day", "dayOfMonth")
for _owner in (Time, DateAndTime):
    _part(_owner, "hour", "hour", "hours")
    _part(_owner, "minute", "minute", "minutes")
    _part(_owner, "second", "second", "seconds")


@Date.method("dayOfWeekName")
@DateAndTime.method("dayOfWeekName")
def day_of_week_name(receiver: datetime.date) -> str:
    return ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")[receiver.weekday()]


@DateAndTime.method("asDate")
def as_date(receiver: datetime.datetime) -> datetime.date:
    return receiver.date()


@DateAndTime.method("asTime")
def as_time(receiver: datetime.datetime) -> datetime.time:
    return receiver.time()


@DateAndTime.method("asUnixTime")
def as_unix_time(receiver: datetime.datetime) -> int:
    return int(receiver.timestamp())


@Date.method("-")
@DateAndTime.method("-")
def minus(receiver: Any, other: Any) -> Any:
    return receiver - other


@Date.method("+")
@DateAndTime.method("+")
@Duration.method("+")
def plus(receiver: Any, other: Any) -> Any:
    return receiver + other


@Date.method("addDays:")
def add_days(receiver: datetime.date, days: int) -> datetime.date:
    return receiver + datetime.timedelta(days=days)


for _name, _unit in {"days": 86400.0, "hours": 3600.0, "minutes": 60.0, "seconds": 1.0, "milliSeconds": 0.001}.items():
    Number.methods[_name] = lambda receiver, unit=_unit: datetime.timedelta(seconds=float(receiver) * unit)


@Duration.method("asSeconds", "totalSeconds")
def as_seconds(receiver: datetime.timedelta) -> int:
    return int(receiver.total_seconds())


@Duration.method("asMilliSeconds")
def as_milliseconds(receiver: datetime.timedelta) -> int:
    return int(receiver.total_seconds() * 1000)


@Duration.method("days")
def days(receiver: datetime.timedelta) -> int:
    return receiver.days
