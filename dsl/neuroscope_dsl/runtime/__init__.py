"""The Smalltalk class library: numbers, strings, collections, streams and exceptions."""
