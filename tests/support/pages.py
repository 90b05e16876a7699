"""What stands in a page of HTML."""

from html.parser import HTMLParser


class Tags(HTMLParser):
    """Every element of a page with its attributes, and the text of its scripts."""

    def __init__(self):
        super().__init__()
        self.seen, self.scripts, self.open = [], [], False

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")
            self.open = True

    def handle_endtag(self, tag):
        self.open = self.open and tag != "script"

    def handle_data(self, data):
        if self.open:
            self.scripts[-1] += data


def parsed(html):
    tags = Tags()
    tags.feed(html)
    return tags
