"""The shop's page and its API. What a service cannot tell is left out, and the rest is shown."""

from __future__ import annotations

import json
import logging
from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET, require_http_methods

from upstream import INVENTORY, ORDERS, Unavailable

LOG = logging.getLogger("gunicorn.error")

CATALOGUE = [
    {"sku": "wool", "name": "Wool cloth", "price": "28.00"},
    {"sku": "linen", "name": "Linen cloth", "price": "19.50"},
    {"sku": "cotton", "name": "Cotton cloth", "price": "12.00"},
]


def look_around(request: HttpRequest) -> dict[str, Any]:
    """What the shop has now. `null` stands for what nobody could tell, and `missing` names it."""
    missing = []
    stock: dict[str, Any] = {}
    try:
        stock = INVENTORY.get(request, "/stock")
    except Unavailable as error:
        LOG.warning("no stock: %s", error)
        missing.append("stock")
    recent = None
    try:
        recent = ORDERS.get(request, "/orders").get("orders")
    except Unavailable as error:
        LOG.warning("no recent orders: %s", error)
        missing.append("recentOrders")
    return {
        "products": [{**product, "stock": stock.get(product["sku"])} for product in CATALOGUE],
        "recentOrders": recent,
        "missing": missing,
    }


@require_GET
def page(request: HttpRequest) -> HttpResponse:
    """`GET /`: the shop for people."""
    return render(request, "shop.html", look_around(request))


@require_GET
def products(request: HttpRequest) -> HttpResponse:
    """`GET /products`: the same for programs."""
    return JsonResponse(look_around(request))


@require_http_methods(["POST"])
def orders(request: HttpRequest) -> HttpResponse:
    """`POST /orders`: as JSON, or from the form of the page."""
    if request.content_type == "application/json":
        status, said = place(request, request.body)
        return JsonResponse(said, status=status)
    quantity = request.POST.get("quantity", "")
    wanted = {
        "sku": request.POST.get("sku", ""),
        "quantity": int(quantity) if quantity.isdecimal() and len(quantity) < 5 else None,
    }
    status, said = place(request, json.dumps(wanted).encode())
    if status == 201:
        return HttpResponseRedirect("/")
    context = {**look_around(request), "refusal": said.get("error")}
    return render(request, "shop.html", context, status=status)


def place(request: HttpRequest, wanted: bytes) -> tuple[int, dict[str, Any]]:
    """Status and answer of an order."""
    try:
        return ORDERS.call(request, "POST", "/orders", wanted)
    except Unavailable as error:
        LOG.warning("no order: %s", error)
        return 503, {"error": "orders cannot be taken at the moment"}
