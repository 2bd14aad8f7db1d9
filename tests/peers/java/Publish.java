// com.pusher:pusher-http-java, unmodified, as publisher. Writes what it saw as one JSON object.

import com.google.gson.Gson;
import com.pusher.rest.Pusher;
import com.pusher.rest.data.Event;
import com.pusher.rest.data.PresenceUser;
import com.pusher.rest.data.Result;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

public class Publish {
  static String told(Result result) {
    return result.getStatus() + " " + result.getHttpStatus() + " " + result.getMessage();
  }

  public static void main(String[] arguments) throws Exception {
    Map<String, String> given = new Gson().fromJson(arguments[0], Map.class);
    Map<String, Object> saw = new LinkedHashMap<>();
    try (Pusher pusher = new Pusher(given.get("appId"), given.get("key"), given.get("secret"))) {
      pusher.setHost(given.get("host"));
      pusher.setEncrypted(false);
      String socket = given.get("socketId");
      saw.put("trigger", told(pusher.trigger("chat", "java", Map.of("text", "žluť 😀"))));
      saw.put("exclusive", told(pusher.trigger("chat", "not to the sender", 1, socket)));
      saw.put("multi", told(pusher.trigger(List.of("chat", "presence-room"), "both", 2)));
      saw.put("batch", told(pusher.trigger(List.of(new Event("chat", "first", 1), new Event("presence-room", "second", 2)))));
      saw.put("channels", told(pusher.get("/channels", Map.of("filter_by_prefix", "presence-", "info", "user_count"))));
      saw.put("channel", told(pusher.get("/channels/presence-room", Map.of("info", "user_count,subscription_count"))));
      saw.put("users", told(pusher.get("/channels/presence-room/users")));
      saw.put("bad", told(pusher.get("/channels/chat/users")));
      saw.put("private", pusher.authenticate(socket, "private-java"));
      saw.put("presence", pusher.authenticate(socket, "presence-java", new PresenceUser("9")));
      saw.put("webhook", pusher.validateWebhookSignature(given.get("key"), given.get("signature"), given.get("body")).name());
      saw.put("forged webhook", pusher.validateWebhookSignature(given.get("key"), "0" + given.get("signature").substring(1), given.get("body")).name());
    }
    System.out.println(new Gson().toJson(saw));
  }
}
