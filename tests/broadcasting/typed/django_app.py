"""What a newcomer writes for Django. `# error: CODE` marks what a type checker must report, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from smartlink.broadcasting import BroadcastEvent, PrivateChannel
from smartlink.broadcasting.integrations.django import DjangoBroadcasting


@dataclass(frozen=True)
class User:
    pk: int


broadcasting = DjangoBroadcasting.from_env()


class OrderShipped(BroadcastEvent):
    order_id: int
    channel = PrivateChannel("orders.{order_id}")


@broadcasting.private("orders.{order_id}")
def may_follow(user: User, order_id: int) -> bool:
    return user.pk == order_id


urlpatterns = broadcasting.urls()
async_urlpatterns = broadcasting.urls(is_async=True)


def ship(order_id: int) -> bool:
    broadcasting.announce(OrderShipped(order_id=order_id), OrderShipped(order_id=8), to_others=True)
    return broadcasting.send_now_sync(OrderShipped(order_id=order_id), to_others=True)


async def ship_async(order_id: int) -> bool:
    return await broadcasting.send_now(OrderShipped(order_id=order_id), to_others=True)


# What is wrong, and is said.


@broadcasting.presence("a")  # error: type-var
def answers_with_text(user: User) -> str:
    return "yes"


broadcasting.announce(OrderShipped)  # error: arg-type
broadcasting.announce([OrderShipped(order_id=7)])  # error: arg-type
broadcasting.announce(OrderShipped(order_id="7"))  # error: arg-type
broadcasting.urls("current_user")  # error: arg-type
DjangoBroadcasting.from_env(using=7)  # error: arg-type
DjangoBroadcasting.from_env(base=User)  # error: call-arg
