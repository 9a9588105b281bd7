"""The Smalltalk class library: what numbers, strings, collections, streams and exceptions understand."""
