defmodule RenderedTest do
  use ExUnit.Case

  test "what is right is cast, what is wrong is named" do
    good = %{"customer_id" => "3", "total" => "9.90", "note" => "x", "unknown" => 1}
    assert {:ok, order} = Orders.Order.new(good)
    assert order == %Orders.Order{customer_id: 3, total: "9.90", note: "x"}
    assert {:error, wrong} = Orders.Order.new(%{"customer_id" => "y", "total" => "x"})

    assert wrong == %{
             customer_id: "must be a whole number",
             total: "must be a decimal number as text",
             note: "is missing"
           }
  end
end
