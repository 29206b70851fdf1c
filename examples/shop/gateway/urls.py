"""The gateway's paths."""

from django.urls import path

import views

urlpatterns = [
    path("", views.page),
    path("products", views.products),
    path("orders", views.orders),
]
