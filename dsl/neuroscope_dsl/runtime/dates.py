"""Date, Time, DateAndTime and Duration, on Python's datetime."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable
from typing import Any

from neuroscope_dsl.runtime.arguments import Real, Whole, wanted
from neuroscope_dsl.runtime.classes import SmalltalkClass, define
from neuroscope_dsl.runtime.exceptions import Error, InvalidArgument
from neuroscope_dsl.runtime.handlers import signal
from neuroscope_dsl.runtime.numbers import ORDER, Magnitude

Date = define("Date", Magnitude, datetime.date)
DateAndTime = define("DateAndTime", Magnitude, datetime.datetime)
Time = define("Time", Magnitude, datetime.time)
Duration = define("Duration", Magnitude, datetime.timedelta)

for _owner in (Date, DateAndTime, Time, Duration):
    _owner.methods |= ORDER

#: The Julian day number of the day before 1 January of year 1.
_FIRST_DAY = 1_721_425

Date.methods |= {
    "year": lambda receiver: receiver.year,
    "month": lambda receiver: receiver.month,
    "day": lambda receiver: receiver.day,
    "julianDayNumber": lambda receiver: receiver.toordinal() + _FIRST_DAY,
}
Time.methods |= {
    "hour": lambda receiver: receiver.hour,
    "minute": lambda receiver: receiver.minute,
    "second": lambda receiver: receiver.second,
    "nanoSecond": lambda receiver: receiver.microsecond * 1000,
}
DateAndTime.methods |= {
    **Date.methods,
    **Time.methods,
    "asDate": lambda receiver: receiver.date(),
    "asTime": lambda receiver: receiver.time(),
    "asUnixTime": lambda receiver: int(receiver.timestamp()),
}
Duration.methods["asNanoSeconds"] = lambda receiver: receiver // datetime.timedelta(microseconds=1) * 1000
Date.class_methods["today"] = lambda receiver: datetime.date.today()
DateAndTime.class_methods["now"] = lambda receiver: datetime.datetime.now().astimezone()
Time.class_methods["now"] = lambda receiver: datetime.datetime.now().time()
Time.class_methods["microsecondClockValue"] = lambda receiver: time.perf_counter_ns() // 1000


def _made(make: Callable[..., Any], *parts: Any) -> Any:
    """A calendar value; signals an error outside the calendar."""
    try:
        return make(*parts)
    except (ValueError, OverflowError) as error:
        return signal(InvalidArgument(f"The calendar has no such value: {error}"))


@Date.class_method("year:month:day:")
def date(receiver: SmalltalkClass, year: Whole, month: Whole, day: Whole) -> Any:
    return _made(datetime.date, year, month, day)


@Date.class_method("julianDayNumber:")
def date_of_number(receiver: SmalltalkClass, number: Whole) -> Any:
    return _made(datetime.date.fromordinal, number - _FIRST_DAY)


@DateAndTime.class_method("year:month:day:hour:minute:second:")
def date_and_time(
    receiver: SmalltalkClass, year: Whole, month: Whole, day: Whole, hour: Whole, minute: Whole, second: Whole
) -> Any:
    return _made(lambda *parts: datetime.datetime(*parts).astimezone(), year, month, day, hour, minute, second)


@Time.class_method("hour:minute:second:")
def time_of_day(receiver: SmalltalkClass, hour: Whole, minute: Whole, second: Whole) -> Any:
    return _made(datetime.time, hour, minute, second)


@Duration.class_method("seconds:")
def duration(receiver: SmalltalkClass, seconds: Real) -> Any:
    return _made(lambda: datetime.timedelta(microseconds=round(seconds * 1_000_000)))


@DateAndTime.method("+")
def later(receiver: datetime.datetime, other: Any) -> Any:
    return _made(lambda: receiver + other) if isinstance(other, datetime.timedelta) else wanted("A duration", other)


@DateAndTime.method("-")
def between(receiver: datetime.datetime, other: Any) -> Any:
    if not isinstance(other, (datetime.timedelta, datetime.datetime)):
        wanted("A duration or another DateAndTime", other)
    try:
        return _made(lambda: receiver - other)
    except TypeError as error:  # one of the two has no offset
        return signal(Error(f"These two cannot be compared: {error}"))
