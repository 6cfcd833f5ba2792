"""What estat is held to: a Falcon resource that reads the body and answers 202, no more."""

import falcon


class Collect:
    """``POST /collect``: drops the event."""

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Read the body in the way that costs least; answer as estat does."""
        req.stream.read(req.content_length or 0)
        resp.status = falcon.HTTP_202
        resp.content_type = falcon.MEDIA_JSON
        resp.data = b'{"accepted":1}'


app = falcon.App()
app.add_route("/collect", Collect())
