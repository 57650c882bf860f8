"""What a fitted ranker does with its bundle alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from numpy.typing import ArrayLike

from mgoe.batch import by_rows
from mgoe.bundle import Bundle
from mgoe.bundle.training_state import copy_bundle
from mgoe.config import check_settings
from mgoe.data import to_arrow
from mgoe.errors import MgoeError, OutputError
from mgoe.ranker.graph import RankerGraph

if TYPE_CHECKING:
    from mgoe.serving.http.supervisor import Service


class NotFittedError(MgoeError, ValueError, AttributeError):
    """A ranker is asked for something before it is fitted."""


class Recommender:
    """Base of `mgoe.Ranker`: predicts, recommends, explains, serves and saves.

    Attributes:
        bundle_: The fitted bundle, which scores.
    """

    bundle_: Bundle

    def predict(
        self, users: ArrayLike, items: ArrayLike, context: Mapping[str, ArrayLike] | None = None
    ) -> pd.DataFrame:
        """Return the probability of each binary task, and the value of each regression, for pairs.

        Args:
            users, items: Ids of one length, or one id for all of the other. Unseen ids are scored as nodes
                without history.
            context: Context features by name, one value per pair or one for all; a missing one is unknown.

        Returns:
            One row per pair: `user`, `item`, and a column per task.

        Raises:
            NotFittedError: The ranker is not fitted.
            BundleError: The lists differ in length, or a context feature is unknown.

        Example:
            >>> ranker.predict(7, [3, 4]).shape
            (2, 4)
        """
        return self._fitted().predict(users, items, context)

    def recommend(
        self,
        users: ArrayLike,
        k: int = 10,
        objective: str | None = None,
        *,
        exclude_known: bool = False,
        exclude: ArrayLike = (),
        at_least: Mapping[str, float] | None = None,
        where: Mapping[str, Any] | None = None,
        max_per: Mapping[str, int] | None = None,
        context: Mapping[str, ArrayLike] | None = None,
        exact: bool = False,
    ) -> pd.DataFrame:
        """Return the best items of the catalogue for each user. Many users are faster in one call.

        Args:
            users: One id, or several; `mgoe.bundle.UnseenUsers` warns of those that were never seen.
            k: Number of items per user.
            objective: What to rank by, computed from the tasks, such as `click * buy^2`; by default that the
                strongest binary task is done.
            exclude_known: Leave out items in the user's history.
            exclude: Ids of items to leave out.
            at_least: The least probability (or value) by task; items below are left out.
            where: One value or several by item feature; other items are left out.
            max_per: Most items per value of an item feature.
            context: One value per context feature.
            exact: Score every item, even if the catalogue is so large that candidates are retrieved.

        Returns:
            `user`, `rank` from 1, `item`, `score`, which orders the list, and a column per task. At most k
                rows per user.

        Raises:
            NotFittedError: The ranker is not fitted.
            MgoeError: The objective or a filter breaks a rule.

        Example:
            >>> best = ranker.recommend([7, 8], k=3, objective="click * buy^2", exclude_known=True)
            >>> best["rank"].tolist()
            [1, 2, 3, 1, 2, 3]
        """
        return by_rows(self._fitted(), len(to_arrow(users, "users"))).recommend(
            users,
            k,
            objective,
            exclude_known=exclude_known,
            exclude=exclude,
            at_least=at_least,
            where=where,
            max_per=max_per,
            context=context,
            exact=exact,
        )

    def explain(
        self, user: object, item: object = None, context: Mapping[str, ArrayLike] | None = None
    ) -> dict[str, Any]:
        """Return what carried the score of a pair, see `Bundle.explain`.

        Args:
            user, item: Ids. Without an item, what is known of the user.
            context: One value per context feature.

        Raises:
            NotFittedError: The ranker is not fitted.
            BundleError: A context feature is unknown or has several values.

        Example:
            >>> sorted(ranker.explain(7, 3)["tasks"])
            ['buy', 'click']
        """
        return self._fitted().explain(user, item, context)

    @property
    def graph(self) -> RankerGraph:
        """The macro graph, by ids.

        Example:
            >>> ranker.graph.to_scipy("user", "item").nnz > 0
            True
        """
        return RankerGraph(self._fitted())

    def save(self, path: Path | str) -> Path:
        """Write the bundle, which `Ranker.load`, `mgoe.load` and `mgoe serve` open.

        What its next retraining needs is stored beside it, in `PATH.training`.

        Args:
            path: A new folder.

        Raises:
            NotFittedError: The ranker is not fitted.
            OutputError: The folder is there already or cannot be written.

        Example:
            >>> import mgoe
            >>> saved = ranker.save("shop")
            >>> mgoe.Ranker.load(saved).predict(7, 3).equals(ranker.predict(7, 3))
            True
        """
        bundle, out = self._fitted(), Path(path)
        if out.exists():
            raise OutputError(out, "is there already; choose a new folder, or remove it")
        copy_bundle(bundle.path, out)
        return out

    def serve(
        self,
        host: str = "127.0.0.1",
        port: int = 8000,
        state: Path | str | None = None,
        **settings: Any,
    ) -> "Service":
        """Serve the bundle over HTTP, as `mgoe serve` does, in the background of this process.

        Args:
            host: Address to listen on. Only this machine can reach the default.
            port: Port; 0 picks a free one.
            state: Folder of the events that it receives; by default beside the bundle.
            settings: Other settings of the service, such as `token_file`, `public`, `window` or `limits`.

        Returns:
            The running service: its `url`, `stop()`, and `wait()`, which blocks until Ctrl-C.

        Raises:
            NotFittedError: The ranker is not fitted.
            MissingExtra: The extra `serve` is not installed.
            MgoeError: A setting breaks a rule, or the port is taken.

        Example:
            >>> service = ranker.serve(port=0, runtime={"engine": "torch"})
            >>> service.stop()
        """
        given = {"bundle": self._fitted().path, "host": host, "port": port, "state": state} | settings
        from mgoe.serving.http.settings import ServeSettings, require_serving

        require_serving()
        from mgoe.serving.http.supervisor import Service

        return Service(check_settings(ServeSettings, given, "serve"), owner=self._fitted())

    def _fitted(self) -> Bundle:
        if not hasattr(self, "bundle_"):
            raise NotFittedError("Ranker", "is not fitted yet; call fit(events) or Ranker.load(path) first")
        return self.bundle_
