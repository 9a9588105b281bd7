"""Views: results as figures and pages; nothing else draws.

Every kind of result registers its figures (`page.figures`); pages need no network. Uses every room below. Start with `page`.
"""
